//! Server-Sent Events of a run.

use serde_json::json;
use tests::fleet::{FleetOptions, TestFleet};
use tests::http_target::HttpTarget;

use crate::definitions::*;

#[tokio::test]
async fn a_stream_tells_what_happens_until_the_end() {
    let (fleet, target) =
        (TestFleet::start(FleetOptions::default()).await, HttpTarget::start().await);
    let (client, gate) = (fleet.client(), target.gate("/held"));
    client
        .create_pipeline(&pipeline(
            "p",
            [call("a", &target.url("/held")), echo("b", json!({}))],
            [edge("a", "b")],
        ))
        .await;
    let id = client.submit("p", json!({})).await;
    target.arrived("/held", 1).await;

    let mut events = client.events(&id, None).await;
    let mut seen = vec![events.next().await.expect("what has happened already")];
    gate.open();
    seen.extend(events.rest().await);

    let names: Vec<_> = seen.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(names.last(), Some(&"run.completed"), "{seen:#?}");
    assert_eq!(names.iter().filter(|name| **name == "node.completed").count(), 2, "{seen:#?}");
    let ids: Vec<u64> =
        seen.iter().map(|event| event.id.parse().expect("a sequence number")).collect();
    assert!(ids.is_sorted(), "{ids:?}");
    fleet.finish().await;
}

#[tokio::test]
async fn a_stream_goes_on_after_the_last_event_seen() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    let run = client.run_pipeline(chain("p", 4), json!({})).await.expect("completed");

    let all = client.events(&run.id, None).await.rest().await;
    assert_eq!(all.last().map(|event| event.name.as_str()), Some("run.completed"), "{all:#?}");
    for event in &all {
        let rest = client.events(&run.id, Some(&event.id)).await.rest().await;
        let expected: Vec<_> =
            all.iter().filter(|other| number(&other.id) > number(&event.id)).cloned().collect();
        assert_eq!(rest, expected, "after {}", event.id);
    }
    fleet.finish().await;
}

#[tokio::test]
async fn every_stream_of_a_run_ends_with_it_even_on_another_api() {
    let (fleet, target) = (
        TestFleet::start(FleetOptions { apis: 2, ..FleetOptions::default() }).await,
        HttpTarget::start().await,
    );
    let (client, gate) = (fleet.client(), target.gate("/held"));
    let id = client.action("call_api", json!({"method": "GET", "url": target.url("/held")})).await;
    target.arrived("/held", 1).await;

    let mut streams = Vec::new();
    for api in [0, 1, 0, 1] {
        streams.push(fleet.client_of(api).events(&id, None).await);
    }
    gate.open();
    for stream in streams {
        let events = stream.rest().await;
        assert_eq!(
            events.last().map(|event| event.name.as_str()),
            Some("run.completed"),
            "{events:#?}"
        );
    }
    fleet.finish().await;
}

fn number(id: &str) -> u64 {
    id.parse().expect("a sequence number")
}
