//! L1, L2 and L3: what the servers do when nothing of ours is in between.

use std::time::{Duration, Instant};

use futures::future::join_all;
use futures::stream::FuturesUnordered;
use futures::{StreamExt, TryStreamExt};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use serde_json::{Value, json};
use sqlx::{ConnectOptions, postgres::PgConnectOptions};
use tests::database::Database;
use tests::servers::Servers;

use crate::Arguments;
use crate::load::CONNECTIONS;
use crate::report::{Machine, quantile, rounded};

/// Single-row insert and update, each committed.
pub(crate) async fn postgres(arguments: &Arguments) -> Value {
    let database = Database::create(&Servers::shared().await.database_url).await;
    database
        .execute(
            "create table limits (id bigint primary key, state text not null, body jsonb not null)",
        )
        .await;
    let pairs = arguments.scaled(1_000);
    let options: PgConnectOptions = database.url().parse().expect("a database's URL is one");
    let sessions =
        join_all((0..CONNECTIONS).map(|_| async { options.connect().await.expect("a session") }))
            .await;
    let (began, machine) = (Instant::now(), Machine::start());
    join_all(sessions.into_iter().enumerate().map(|(client, mut session)| async move {
        for n in 0..pairs {
            let id = i64::try_from(client * pairs + n).expect("a small number");
            sqlx::query("insert into limits values ($1, 'queued', $2)")
                .bind(id)
                .bind(json!({"n": n}))
                .execute(&mut session)
                .await
                .expect("inserted");
            sqlx::query("update limits set state = 'completed' where id = $1 and state = 'queued'")
                .bind(id)
                .execute(&mut session)
                .await
                .expect("updated");
        }
    }))
    .await;
    let seconds = began.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let commits = (2 * pairs * CONNECTIONS) as f64;
    json!({
        "workload": "L1",
        "unit": "commits/s",
        "rate": rounded(commits / seconds, 1),
        "seconds": rounded(seconds, 3),
        "connections": CONNECTIONS,
        "machine": machine.end(),
    })
}

/// Publishing with confirms, a thousand in flight, and consuming with acks, at once, on one quorum queue.
pub(crate) async fn rabbitmq(arguments: &Arguments) -> Value {
    let messages = arguments.scaled(50_000);
    let url = Servers::shared().await.amqp_url;
    let queue = format!("t-limit-{:08x}", rand::random::<u32>());
    let publishing = connect(&url).await;
    let consuming = connect(&url).await;
    let channel = publishing.create_channel().await.expect("a channel");
    let mut quorum = FieldTable::default();
    quorum.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    channel
        .queue_declare(queue.as_str().into(), QueueDeclareOptions::durable(), quorum)
        .await
        .expect("a queue");
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");

    let (began, machine) = (Instant::now(), Machine::start());
    let done = futures::future::join(
        publish(&channel, &queue, messages),
        consume(&consuming, &queue, messages),
    );
    let done = tokio::time::timeout(Duration::from_secs(300), done).await;
    let seconds = began.elapsed().as_secs_f64();
    let _ = channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await;
    done.expect("all messages arrive within five minutes");
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let rate = messages as f64 / seconds;
    json!({
        "workload": "L2",
        "unit": "messages/s",
        "rate": rounded(rate, 1),
        "seconds": rounded(seconds, 3),
        "messages": messages,
        "bytes": 256,
        "machine": machine.end(),
    })
}

/// The hops of one action, one after the other, with nothing of ours in between: a row is inserted, a message goes
/// through a quorum queue, the row is updated twice, a transient message goes through another queue, the row is read.
pub(crate) async fn one_by_one(arguments: &Arguments) -> Value {
    let servers = Servers::shared().await;
    let database = Database::create(&servers.database_url).await;
    database.execute("create table limits (id bigint primary key, state text not null)").await;
    let options: PgConnectOptions = database.url().parse().expect("a database's URL is one");
    let mut session = options.connect().await.expect("a session");
    let (publishing, consuming) =
        (connect(&servers.amqp_url).await, connect(&servers.amqp_url).await);
    let channel = publishing.create_channel().await.expect("a channel");
    let consumers = consuming.create_channel().await.expect("a channel");
    let (jobs, mut job) = path(&consumers, QueueDeclareOptions::durable(), "quorum").await;
    // As the queues of hints are.
    let own = QueueDeclareOptions { exclusive: true, auto_delete: true, ..Default::default() };
    let (hints, mut hint) = path(&consumers, own, "classic").await;
    let count = arguments.scaled(300);
    let mut milliseconds = Vec::with_capacity(count);
    let machine = Machine::start();
    let rounds = async {
        for n in 0..count {
            let id = i64::try_from(n).expect("a small number");
            let began = Instant::now();
            let insert = sqlx::query("insert into limits values ($1, 'queued')").bind(id);
            insert.execute(&mut session).await.expect("inserted");
            pass(&channel, &jobs, 2, &mut job).await;
            for state in ["running", "completed"] {
                let update = sqlx::query("update limits set state = $2 where id = $1").bind(id);
                update.bind(state).execute(&mut session).await.expect("updated");
            }
            pass(&channel, &hints, 1, &mut hint).await;
            let read = sqlx::query("select state from limits where id = $1").bind(id);
            read.fetch_one(&mut session).await.expect("read");
            milliseconds.push(began.elapsed().as_secs_f64() * 1e3);
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(300), rounds).await;
    let _ = channel.queue_delete(jobs.into(), QueueDeleteOptions::default()).await;
    done.expect("all messages arrive within five minutes");
    milliseconds.sort_by(f64::total_cmp);
    json!({
        "workload": "L3",
        "unit": "ms",
        "p50": rounded(quantile(&milliseconds, 0.5), 2),
        "p95": rounded(quantile(&milliseconds, 0.95), 2),
        "p99": rounded(quantile(&milliseconds, 0.99), 2),
        "rounds": count,
        "machine": machine.end(),
    })
}

/// A queue, and what consumes it.
async fn path(
    channel: &lapin::Channel,
    options: QueueDeclareOptions,
    kind: &str,
) -> (String, lapin::Consumer) {
    let queue = format!("t-limit-{:08x}", rand::random::<u32>());
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
    let declared = channel.queue_declare(queue.as_str().into(), options, arguments).await;
    declared.expect("a queue");
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let (name, tag) = (queue.as_str().into(), kind.into());
    let consumer = channel.basic_consume(name, tag, options, FieldTable::default());
    (queue, consumer.await.expect("a consumer"))
}

/// Publishes a message, and waits for its delivery.
async fn pass(channel: &lapin::Channel, queue: &str, mode: u8, consumer: &mut lapin::Consumer) {
    let properties = BasicProperties::default().with_delivery_mode(mode);
    let options = BasicPublishOptions::default();
    let body = [b'x'; 256];
    let published = channel.basic_publish("".into(), queue.into(), options, &body, properties);
    drop(published.await.expect("published"));
    consumer.next().await.expect("a message").expect("a message");
}

async fn connect(url: &str) -> Connection {
    Connection::connect(url, ConnectionProperties::default())
        .await
        .expect("RabbitMQ takes connections")
}

async fn publish(channel: &lapin::Channel, queue: &str, messages: usize) {
    let body = [b'x'; 256];
    let mut confirms = FuturesUnordered::new();
    for _ in 0..messages {
        let properties = BasicProperties::default().with_delivery_mode(2);
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let confirm =
            channel.basic_publish("".into(), queue.into(), options, &body, properties).await;
        confirms.push(confirm.expect("published"));
        if confirms.len() >= 1000 {
            confirms.try_next().await.expect("confirmed");
        }
    }
    while confirms.try_next().await.expect("confirmed").is_some() {}
}

async fn consume(connection: &Connection, queue: &str, messages: usize) {
    let channel = connection.create_channel().await.expect("a channel");
    channel.basic_qos(1000, BasicQosOptions::default()).await.expect("a prefetch");
    let consumer = channel.basic_consume(
        queue.into(),
        "bench".into(),
        BasicConsumeOptions::default(),
        FieldTable::default(),
    );
    let mut consumer = consumer.await.expect("a consumer");
    for _ in 0..messages {
        let delivery = consumer.next().await.expect("a message").expect("a message");
        channel.basic_ack(delivery.delivery_tag, BasicAckOptions::default()).await.expect("acked");
    }
}
