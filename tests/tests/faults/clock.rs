//! Clocks that are wrong.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::fleet::{FleetOptions, Role, SECRET, TestFleet};
use tests::http_target::{HttpTarget, Reply};
use tests::ledger::seconds;

use super::most_effects;
use crate::definitions::*;

/// The library itself: the program `faketime` would stand between the test and the process that it signals.
fn library() -> String {
    let folders = std::fs::read_dir("/usr/lib").expect("a folder of libraries");
    let found = folders.filter_map(|folder| {
        let library = folder.ok()?.path().join("faketime/libfaketime.so.1");
        library.exists().then(|| library.display().to_string())
    });
    found.last().expect("the package libfaketime is installed")
}

#[tokio::test]
#[ignore = "needs the package libfaketime, which `make faults` installs"]
async fn fault_30_clocks_that_are_an_hour_off_change_nothing() {
    let entry = tests::entry!();
    let target = HttpTarget::start().await;
    target.answers("/flaky", [Reply::status(503), Reply::status(503), Reply::status(200)]);
    let library = library();
    let mut fleet = TestFleet::prepare(FleetOptions::default()).await;
    for (role, off) in [(Role::Api, "+1h"), (Role::Worker, "+1h"), (Role::Scheduler, "-1h")] {
        // Only the time of day is off: no clock that counts from the machine's start can be.
        let environment =
            [("LD_PRELOAD", &*library), ("FAKETIME", off), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
        fleet.add(role, &environment);
    }
    fleet.ready().await;
    let token = tests::client::token(SECRET, "test", "admin", Duration::from_secs(3 * 3600));
    let client = fleet.client().with_token(Some(token));
    let off = client.get("/v1/runs").await;
    let date = off.header("date").expect("a date").to_owned();
    let hour = chrono::DateTime::parse_from_rfc2822(&date).expect("a date").timestamp()
        - std::time::UNIX_EPOCH.elapsed().expect("a clock").as_secs().cast_signed();
    assert!((3500..3700).contains(&hour), "the api's clock is {hour} s off");

    let began = Instant::now();
    let late = client.action_with(json!({"action": "echo", "input": {}, "delay": "2s"})).await;
    let definition = pipeline(
        "p",
        [delay("d", "1s"), with(call("e", &target.url("/flaky")), "retry", quick_retry(5))],
        [edge("d", "e")],
    );
    client.create_pipeline(&definition).await;
    let run = client.submit("p", json!({})).await;
    let mut endless = pipeline("endless", [delay("d", "30m")], []);
    endless["timeout"] = json!("1h");
    client.create_pipeline(&endless).await;
    let mut bounded = pipeline("bounded", [shell("s", "sleep 60")], []);
    bounded["timeout"] = json!("1s");
    client.create_pipeline(&bounded).await;
    let (waits, stopped) =
        (client.submit("endless", json!({})).await, client.submit("bounded", json!({})).await);

    client.wait(&run).await.expect("completed");
    client.wait(&late).await.expect("completed");
    let took = began.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(15)).contains(&took), "{took:?}");
    assert_eq!(target.received("/flaky").len(), 3);
    most_effects(&target.effects("/flaky"), 1);
    client.wait(&stopped).await.expect("timed_out");
    assert_eq!(client.run(&waits).await.node("d").state, "waiting", "half an hour is not over");
    client.cancel(&waits).await;
    client.wait(&waits).await.expect("cancelled");
    fleet.finish().await;
    entry.seen(format!("the api's clock {hour} s ahead; a delay of 2 s and a run with a delay of 1 s and two retries had ended after {}; one of 30 min went on waiting", seconds(took)));
}
