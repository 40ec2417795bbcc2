//! RabbitMQ as an operator sees it: what lies in a fleet's queues, and what one may do to them.

use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeleteOptions,
    QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use serde_json::Value;

use crate::client::http;

/// One fleet's part of a broker. Each call has a connection of its own, since tests break connections.
#[derive(Debug, Clone)]
pub struct Broker {
    amqp_url: String,
    management_url: Option<String>,
    prefix: String,
}

/// A message that lay in a queue.
#[derive(Debug, Clone)]
pub struct Message {
    /// Its body as it is.
    pub data: Vec<u8>,
    /// Its body, if it is JSON, else null.
    pub body: Value,
    /// Its properties, headers among them.
    pub properties: BasicProperties,
}

impl Message {
    /// A header, as text.
    pub fn header(&self, name: &str) -> Option<String> {
        let value = self.properties.headers().as_ref()?.inner().get(name)?;
        Some(match value {
            lapin::types::AMQPValue::LongString(text) => text.to_string(),
            lapin::types::AMQPValue::ShortString(text) => text.to_string(),
            other => format!("{other:?}"),
        })
    }
}

impl Broker {
    /// What lies under a prefix.
    pub fn new(amqp_url: &str, management_url: Option<&str>, prefix: &str) -> Self {
        Self {
            amqp_url: amqp_url.to_owned(),
            management_url: management_url.map(str::to_owned),
            prefix: prefix.to_owned(),
        }
    }

    /// The queue of a lane.
    pub fn lane(&self, lane: &str) -> String {
        format!("{}.work.{lane}", self.prefix)
    }

    /// The queue of messages that nobody could read.
    pub fn dead(&self) -> String {
        format!("{}.dead", self.prefix)
    }

    /// The queue of what remote tools are asked.
    pub fn tool(&self, name: &str) -> String {
        format!("{}.tool.{name}", self.prefix)
    }

    /// The queue of what remote tools answer.
    pub fn replies(&self) -> String {
        format!("{}.replies", self.prefix)
    }

    /// How many messages are ready in a queue; none when there is no such queue.
    pub async fn ready(&self, queue: &str) -> Option<u32> {
        let channel = self.channel().await;
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declared = channel.queue_declare(queue.into(), options, FieldTable::default()).await;
        declared.ok().map(|queue| queue.message_count())
    }

    /// Looks at all messages that are ready, and leaves them there.
    pub async fn peek(&self, queue: &str) -> Vec<Message> {
        let channel = self.channel().await;
        // They return when the channel closes.
        let messages = get_all(&channel, queue, false).await;
        channel.close(200, "seen".into()).await.expect("a sound channel closes");
        messages
    }

    /// Removes all messages that are ready, and returns them.
    pub async fn take(&self, queue: &str) -> Vec<Message> {
        get_all(&self.channel().await, queue, true).await
    }

    /// Throws away all messages that are ready.
    pub async fn purge(&self, queue: &str) -> u32 {
        let channel = self.channel().await;
        channel
            .queue_purge(queue.into(), QueuePurgeOptions::default())
            .await
            .expect("a queue can be purged")
    }

    /// Publishes into a lane, and waits until the broker has it.
    pub async fn publish(&self, lane: &str, body: &[u8], properties: BasicProperties) {
        let channel = self.channel().await;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await
            .expect("confirms can be asked for");
        let exchange = format!("{}.work", self.prefix);
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let published =
            channel.basic_publish(exchange.into(), lane.into(), options, body, properties).await;
        let confirmed =
            published.expect("a message can be published").await.expect("a confirm comes");
        let returned = confirmed.take_message().is_some();
        assert!(!returned, "the message for lane {lane} found no queue");
    }

    /// Deletes a queue and what is in it.
    pub async fn delete(&self, queue: &str) {
        let channel = self.channel().await;
        channel
            .queue_delete(queue.into(), QueueDeleteOptions::default())
            .await
            .expect("a queue can be deleted");
    }

    /// Takes a lane's queue away from the exchange; what is in it stays.
    pub async fn unbind(&self, lane: &str) {
        let (queue, exchange) = (self.lane(lane), format!("{}.work", self.prefix));
        let channel = self.channel().await;
        channel
            .queue_unbind(queue.into(), exchange.into(), lane.into(), FieldTable::default())
            .await
            .expect("a queue can be unbound");
    }

    /// Removes all that has this prefix. `lanes` are those to remove when the management API is not there to list them.
    pub async fn remove_all(&self, lanes: &[String]) {
        let mut queues = vec![self.dead(), self.replies()];
        queues.extend(lanes.iter().map(|lane| self.lane(lane)));
        let Ok(connection) = connect(&self.amqp_url).await else { return };
        let Ok(channel) = connection.create_channel().await else { return };
        for queue in queues {
            let _ = channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await;
        }
        for exchange in ["work", "dead", "events"] {
            let exchange = format!("{}.{exchange}", self.prefix);
            let _ =
                channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default()).await;
        }
        let _ = connection.close(200, "removed".into()).await;
    }

    /// What the management API says about a path, such as `connections` or `queues/%2f`.
    pub async fn management(&self, path: &str) -> Value {
        let base = self.management_url.as_deref().expect("this test needs RABBITMQ_MANAGEMENT_URL");
        let base = reqwest::Url::parse(base).expect("RABBITMQ_MANAGEMENT_URL is a URL");
        let (user, password) = (base.username().to_owned(), base.password().map(str::to_owned));
        let url = base.join(&format!("/api/{path}")).expect("a path of the management API");
        let answer = http()
            .get(url)
            .basic_auth(user, password)
            .send()
            .await
            .expect("the management API answers");
        answer
            .error_for_status()
            .expect("the management API knows it")
            .json()
            .await
            .expect("it answers JSON")
    }

    /// Whether there is a management API.
    pub fn has_management(&self) -> bool {
        self.management_url.is_some()
    }

    async fn channel(&self) -> Channel {
        let connection =
            connect(&self.amqp_url).await.expect("the test's RabbitMQ takes connections");
        connection.create_channel().await.expect("a sound connection opens channels")
    }
}

async fn connect(url: &str) -> lapin::Result<Connection> {
    let properties = ConnectionProperties::default().with_connection_name("gathering test".into());
    Connection::connect(url, properties).await
}

async fn get_all(channel: &Channel, queue: &str, no_ack: bool) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some(got) = channel
        .basic_get(queue.into(), BasicGetOptions { no_ack })
        .await
        .expect("a queue can be read")
    {
        let delivery = got.delivery;
        let body = serde_json::from_slice(&delivery.data).unwrap_or(Value::Null);
        messages.push(Message { data: delivery.data, body, properties: delivery.properties });
    }
    messages
}
