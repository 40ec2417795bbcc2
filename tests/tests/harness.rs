//! The harness itself: a proxy that forwards when it should not would prove nothing.

use std::time::{Duration, Instant};

use sqlx::Connection;
use tests::proxy::{Mode, Proxy};
use tests::servers::{PrivatePostgres, PrivateRabbit};
use tests::wait::{eventually, seen};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// A server that sends back what it gets, and a proxy before it.
async fn echoing() -> (String, Proxy) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("amqp://{}/", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    let proxy = Proxy::before(&url).await;
    (proxy.url(&url), proxy)
}

async fn connect(url: &str) -> TcpStream {
    let address = url.trim_start_matches("amqp://").trim_end_matches('/');
    TcpStream::connect(address).await.expect("the proxy takes connections")
}

/// What comes back within a short time: none for nothing, an empty text for the end.
async fn say(stream: &mut TcpStream, text: &str) -> Option<String> {
    if stream.write_all(text.as_bytes()).await.is_err() {
        return Some(String::new());
    }
    let mut buffer = [0; 1024];
    let read = timeout(Duration::from_millis(300), stream.read(&mut buffer)).await.ok()?;
    Some(String::from_utf8_lossy(&buffer[..read.unwrap_or(0)]).into_owned())
}

#[tokio::test]
async fn a_proxy_fails_as_it_is_told() {
    let (url, proxy) = echoing().await;
    let mut stream = connect(&url).await;
    assert_eq!(say(&mut stream, "one").await.as_deref(), Some("one"));
    assert_eq!(proxy.links(), 1);

    proxy.set(Mode::Hold);
    assert_eq!(say(&mut stream, "two").await, None, "nothing is forwarded");
    proxy.set(Mode::Forward);
    assert_eq!(say(&mut stream, "").await.as_deref(), Some("two"), "and nothing is lost");

    for mode in [Mode::SwallowRequests, Mode::SwallowAnswers] {
        proxy.set(mode);
        assert_eq!(say(&mut stream, "lost").await, None);
    }
    proxy.set(Mode::Forward);
    assert_eq!(say(&mut stream, "four").await.as_deref(), Some("four"));

    proxy.set(Mode::Delay(Duration::from_millis(50)));
    let began = Instant::now();
    assert_eq!(say(&mut stream, "five").await.as_deref(), Some("five"));
    assert!(began.elapsed() >= Duration::from_millis(100), "once each way");
    proxy.set(Mode::Trickle(1, Duration::from_millis(5)));
    assert_eq!(say(&mut stream, "six").await.as_deref(), Some("s"));

    proxy.cut();
    let mut rest = String::new();
    assert!(
        stream.read_to_string(&mut rest).await.is_ok() || rest.is_empty(),
        "the link is closed"
    );
    proxy.set(Mode::Refuse);
    assert_eq!(say(&mut connect(&url).await, "seven").await.as_deref(), Some(""));
    proxy.heal();
    assert_eq!(say(&mut connect(&url).await, "eight").await.as_deref(), Some("eight"));
    eventually(Duration::from_secs(5), "all links to be gone", async || {
        seen(proxy.links() == 0, proxy.links())
    })
    .await;
}

#[tokio::test]
#[ignore = "starts servers of its own"]
async fn private_servers_are_killed_frozen_and_restarted() {
    let rabbit = PrivateRabbit::start().await;
    let postgres = PrivatePostgres::start().await;
    let answer = async |broker: bool, database: bool| {
        let (amqp_url, database_url) = (rabbit.url(), postgres.url());
        eventually(Duration::from_secs(30), "the servers to be as they were told", async || {
            let properties = lapin::ConnectionProperties::default();
            let connection = lapin::Connection::connect(&amqp_url, properties);
            let connected =
                timeout(Duration::from_secs(2), connection).await.is_ok_and(|done| done.is_ok());
            let session =
                timeout(Duration::from_secs(2), sqlx::PgConnection::connect(&database_url)).await;
            let answers = (connected, session.is_ok_and(|done| done.is_ok()));
            seen(answers == (broker, database), answers)
        })
        .await
    };
    answer(true, true).await;
    rabbit.freeze().await;
    answer(false, true).await;
    rabbit.thaw().await;
    postgres.freeze().await;
    answer(true, false).await;
    postgres.thaw().await;
    for server in [&*rabbit, &*postgres] {
        server.kill().await;
        server.up().await;
        server.restart().await;
    }
    answer(true, true).await;
    assert!(rabbit.ctl(&["status"]).await.contains("RabbitMQ"));
}
