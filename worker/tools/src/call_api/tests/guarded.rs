//! Attempts to reach what is not public, through the real client.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt;

use super::*;

/// Ways to write 127.0.0.1 and other addresses that are not public. `{port}` is one that a server listens on, at
/// 127.0.0.1 and at ::1.
const ATTEMPTS: &[&str] = &[
    // As they are.
    "http://127.0.0.1:{port}/",
    "http://127.9.9.9:{port}/",
    "http://0.0.0.0:{port}/",
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://172.31.255.254/",
    "http://192.168.1.1/",
    "http://100.64.0.1/",
    "http://198.18.0.1/",
    "http://192.0.2.1/",
    "http://203.0.113.1/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
    "http://240.0.0.1/",
    // Metadata of clouds.
    "http://169.254.169.254/latest/meta-data/",
    "http://100.100.100.200/",
    "http://168.63.129.16/",
    "http://192.0.0.192/",
    "http://[fd00:ec2::254]/",
    "http://metadata.localhost:{port}/",
    // In other notations.
    "http://2130706433:{port}/",
    "http://0x7f000001:{port}/",
    "http://0x7F.0.0.1:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://017700000001:{port}/",
    "http://127.1:{port}/",
    "http://127.0.1:{port}/",
    "http://0x7f.1:{port}/",
    "http://0:{port}/",
    "http://0xa9fea9fe/",
    "http://2852039166/",
    "http://127.0.0.1.:{port}/",
    "http://0x7f.1.:{port}/",
    "http://127.0.0.1%2e:{port}/",
    "http://%31%32%37.0.0.1:{port}/",
    // In other scripts: digits of full width, circled ones, dots of other alphabets.
    "http://１２７.０.０.１:{port}/",
    "http://①②⑦.⓪.⓪.①:{port}/",
    "http://127。0。0。1:{port}/",
    "http://127.0.0．1:{port}/",
    "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:{port}/",
    // IPv6.
    "http://[::1]:{port}/",
    "http://[::]:{port}/",
    "http://[0:0:0:0:0:0:0:1]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::ffff:7f00:1]:{port}/",
    "http://[::127.0.0.1]:{port}/",
    "http://[64:ff9b::127.0.0.1]/",
    "http://[64:ff9b:1::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://[2001:0:4136:e378:8000:63bf:80ff:fffe]/",
    "http://[fe80::1]/",
    "http://[fe80::1%25eth0]/",
    "http://[fc00::1]/",
    "http://[ff02::1]/",
    "http://[2001:db8::1]/",
    // Names that lead there, and what only looks like another host.
    "http://localhost:{port}/",
    "http://LOCALHOST.:{port}/",
    "http://8.8.8.8@127.0.0.1:{port}/",
    "http://example.com:80@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}\\@example.com/",
    "http:\\\\127.0.0.1:{port}/",
    "http:127.0.0.1:{port}/",
];

/// A server at 127.0.0.1 and ::1 that only counts who connects.
async fn counting() -> (u16, Arc<AtomicUsize>, JoinSet<()>) {
    let first = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = first.local_addr().unwrap().port();
    let mut listeners = vec![first];
    // Not every machine has IPv6.
    listeners.extend(TcpListener::bind(("::1", port)).await);
    let count = Arc::<AtomicUsize>::default();
    let mut tasks = JoinSet::new();
    for listener in listeners {
        let count = count.clone();
        tasks.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let _ = read_request(&mut stream).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            }
        });
    }
    (port, count, tasks)
}

#[tokio::test]
async fn r14_what_is_not_public_is_not_reached_however_it_is_written() {
    let (port, count, _tasks) = counting().await;
    assert!(ATTEMPTS.len() >= 40);
    let http = http("");
    for attempt in ATTEMPTS {
        let url = attempt.replace("{port}", &port.to_string());
        let message = match super::super::run(&http, json!({ "url": url }), &context()).await {
            Err(Failure::Permanent { message }) => message,
            // A name that this machine does not know leads nowhere.
            Err(Failure::Retryable { message, .. }) if attempt.contains("localhost") => message,
            other => panic!("{attempt}: {other:?}"),
        };
        let refused = ["may not be reached", "no URL", "resolve", "lookup"];
        assert!(refused.iter().any(|words| message.contains(words)), "{attempt}: {message}");
        assert_eq!(count.load(Ordering::SeqCst), 0, "{attempt} was connected to");
    }
}

#[tokio::test]
async fn what_is_opened_is_reached_and_nothing_else() {
    let (port, count, _tasks) = counting().await;
    for (allowed, host, reached) in [
        ("127.0.0.1", "127.0.0.1", true),
        ("127.0.0.0/8", "0x7f.1", true),
        ("127.0.0.1", "localhost", true),
        ("localhost", "localhost", true),
        ("localhost", "LocalHost.", true),
        ("localhost", "127.0.0.1", false),
        ("127.0.0.2", "127.0.0.1", false),
        ("::1", "127.0.0.1", false),
    ] {
        let before = count.load(Ordering::SeqCst);
        let input = json!({ "url": format!("http://{host}:{port}/") });
        let outcome = super::super::run(&http(allowed), input, &context()).await;
        assert_eq!(outcome.is_ok(), reached, "{allowed}: {host}: {outcome:?}");
        assert_eq!(count.load(Ordering::SeqCst) > before, reached, "{allowed}: {host}");
    }
}

#[tokio::test]
async fn redirects_lead_nowhere_else() {
    let (port, count, _tasks) = counting().await;
    // 127.0.0.2 stands for the public internet.
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let public = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let Some(request) = read_request(&mut stream).await else { continue };
            let to = header(&request, "x-to").unwrap_or_default().to_owned();
            let head = format!("307 Moved\nConnection: close\nLocation: {to}");
            let _ = stream.write_all(&answer(&head, "")).await;
        }
    });
    let http = http("127.0.0.2");
    for to in [
        "http://127.0.0.1:{port}/",
        "http://2130706433:{port}/",
        "//[::1]:{port}/",
        "http://localhost:{port}/",
        "http://[::ffff:7f00:1]:{port}/",
        "http://x@0177.1:{port}/",
        "HTTP://１２７.1:{port}/",
        "/\\127.0.0.1:{port}/",
    ] {
        let to = to.replace("{port}", &port.to_string());
        // Headers are ASCII.
        let to =
            if to.is_ascii() { to } else { to.replace("１２７", "%EF%BC%91%EF%BC%92%EF%BC%97") };
        let input = json!({ "url": format!("http://{public}/"), "headers": { "x-to": to } });
        let message = permanent(super::super::run(&http, input, &context()).await);
        assert!(message.contains("may not be reached"), "{to}: {message}");
    }
    assert_eq!(count.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_name_that_is_rebound_is_checked_at_every_connection() {
    let (port, count, _tasks) = counting().await;
    // The same port, at an address that stands for the public internet; each answer ends its connection.
    let listener = TcpListener::bind(("127.0.0.2", port)).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = read_request(&mut stream).await;
            let head = "307 Moved\nConnection: close\nLocation: /again";
            let _ = stream.write_all(&answer(head, "")).await;
        }
    });
    let asked = Arc::<AtomicUsize>::default();
    let names = {
        let asked = asked.clone();
        move |_| {
            let first = asked.fetch_add(1, Ordering::SeqCst) == 0;
            let address: IpAddr = if first { "127.0.0.2" } else { "127.0.0.1" }.parse().unwrap();
            std::future::ready(Ok(vec![address])).boxed()
        }
    };
    let guard = Guard::asking("127.0.0.2".parse().unwrap(), Arc::new(names));
    let http = Http::open(Arc::new(guard)).unwrap();
    let input = || json!({ "url": format!("http://rebound.example:{port}/") });
    // The first hop goes where the name led; the redirect back to the same name leads to loopback by then.
    let message = permanent(super::super::run(&http, input(), &context()).await);
    assert!(message.contains("`rebound.example` may not be reached"), "{message}");
    assert_eq!(
        asked.load(Ordering::SeqCst),
        2,
        "asked once a connection: what was checked is connected to"
    );
    permanent(super::super::run(&http, input(), &context()).await);
    assert_eq!((asked.load(Ordering::SeqCst), count.load(Ordering::SeqCst)), (3, 0));
}
