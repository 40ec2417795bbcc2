use std::time::{Duration, Instant};

use tests::http_target::{HttpTarget, Reply};
use tests::ledger::Entry;
use tests::wait::eventually;

use super::*;
use crate::definitions::*;

/// A pipeline whose only node starts a run of `each` for every item of its input.
fn map(name: &str, extra: Value) -> Value {
    let input = json!({"item": "{{ item }}", "index": "{{ index }}"});
    let mut node = with(calls("map", "each", input), "retry", quick_retry(1));
    node["config"]["for_each"] = json!("{{ input.items }}");
    for (key, value) in extra.as_object().into_iter().flatten() {
        node["config"][key] = value.clone();
    }
    pipeline(name, [node], [])
}

/// Returns its item, doubled; fails when that is no number.
fn doubles() -> Value {
    pipeline(
        "each",
        [echo(
            "double",
            json!({"twice": "{{ input.item * 2 - 0 }}", "index": "{{ input.index }}"}),
        )],
        [],
    )
}

#[tokio::test]
async fn a_map_gives_the_outputs_in_the_order_of_its_items() {
    let fleet = TestFleet::start(two_workers()).await;
    let client = fleet.client();
    client.create_pipeline(&doubles()).await;
    let items: Vec<i64> = (0..40).map(|n| n * 7 % 41).collect();
    client.create_pipeline(&map("ordered", json!({"max_concurrency": 3}))).await;
    let run = client.submit("ordered", json!({"items": items})).await;
    // No more of them are under way than may be.
    let run = eventually(Duration::from_secs(60), "the map to end", async || {
        let seen = client.run(&run).await;
        let waiting = &seen.node("map").waiting;
        if let (Some(begun), Some(ended)) = (waiting["begun"].as_i64(), waiting["ended"].as_i64()) {
            assert!(begun - ended <= 3, "{waiting}");
            assert_eq!((&waiting["for"], &waiting["children"]), (&json!("map"), &json!(40)));
        }
        if seen.is_over() { Ok(seen) } else { Err("it goes on") }
    })
    .await
    .expect("completed");
    let output = client.node(&run.id, "map").await["output"].clone();
    let expected: Vec<Value> =
        (0..).zip(&items).map(|(index, item)| json!({"twice": item * 2, "index": index})).collect();
    assert_eq!(output, json!(expected));
    assert_eq!(client.list(&format!("/v1/runs?parent={}", run.id)).await.len(), 40);

    // Without an input, each gets its item.
    let mut node = calls("map", "same", json!(null));
    node["config"]["for_each"] = json!([{"a": 1}, {"a": 2}]);
    client
        .create_pipeline(&pipeline("same", [echo("x", json!({"got": "{{ input.a }}"}))], []))
        .await;
    let run =
        client.run_pipeline(pipeline("plain", [node], []), json!({})).await.expect("completed");
    assert_eq!(run.output, json!([{"got": 1}, {"got": 2}]));
    fleet.finish().await;
}

#[tokio::test]
async fn one_that_fails_fails_the_map_or_is_collected() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    client.create_pipeline(&doubles()).await;
    let items = json!({"items": [1, "a", 3]});
    let config = json!({"on_item_failure": "collect"});
    let run = client.run_pipeline(map("collects", config), items.clone()).await.expect("completed");
    let got = run.output.as_array().expect("a list");
    let states: Vec<&Value> = got.iter().map(|one| &one["state"]).collect();
    assert_eq!(states, ["completed", "failed", "completed"]);
    assert_eq!(got[2]["output"], json!({"twice": 6, "index": 2}));
    assert_eq!(got[1]["error"]["kind"], "permanent");
    assert!(got[0]["run"].is_string() && got[1]["output"].is_null(), "{got:?}");

    let run = client.run_pipeline(map("fails", json!({})), items).await.expect("failed");
    let message = run.error["message"].as_str().expect("a message");
    assert!(message.starts_with("item 1: the child run "), "{message}");

    // What is under way then is stopped, and what has not begun never does.
    let nodes = [approval("ask", json!({})), failing("x")];
    let each = pipeline("each2", nodes, [edge_when("ask", "x", "always")]);
    client.create_pipeline(&each).await;
    let mut node = with(calls("map", "each2", json!(null)), "retry", quick_retry(1));
    node["config"]["for_each"] = json!([1, 2, 3, 4, 5]);
    node["config"]["max_concurrency"] = json!(3);
    client.create_pipeline(&pipeline("stops", [node], [])).await;
    let run = client.submit("stops", json!({})).await;
    let of_run = format!("/v1/runs?parent={run}");
    let children = eventually(Duration::from_secs(30), "three children", async || {
        let children = client.list(&of_run).await;
        if children.len() == 3 { Ok(children) } else { Err(children.len()) }
    })
    .await;
    let child = children[0]["id"].as_str().expect("an id");
    client.wait_for_node(child, "ask", "waiting").await;
    let at = format!("/v1/runs/{child}/nodes/ask/decision");
    client.post(&at, &json!({"approve": true})).await.expect(200);
    client.wait(&run).await.expect("failed");
    for other in &children[1..] {
        client.wait(other["id"].as_str().expect("an id")).await.expect("cancelled");
    }
    assert_eq!(client.list(&of_run).await.len(), 3);
    fleet.finish().await;
}

#[tokio::test]
async fn a_map_has_limits() {
    let fleet = TestFleet::start(FleetOptions::default()).await;
    let client = fleet.client();
    client.create_pipeline(&doubles()).await;
    client.create_pipeline(&map("limits", json!({}))).await;
    let ended = async |items: Value| {
        let run = client.submit("limits", json!({"items": items})).await;
        client.wait(&run).await
    };
    let empty = ended(json!([])).await.expect("completed");
    assert_eq!(empty.output, json!([]));
    let many: Vec<u8> = vec![0; 10_001];
    for (items, why) in [
        (json!({"a": 1}), "/for_each: must be a list, and is an object"),
        (json!(many), "/for_each: has 10001 items, where at most 10000 may be"),
    ] {
        let run = ended(items).await.expect("failed");
        let message = run.error["message"].as_str().expect("a message");
        assert!(message.contains(why), "{message}");
        assert!(client.list(&format!("/v1/runs?parent={}", run.id)).await.is_empty());
    }

    // All outputs together are an output like any other.
    let mut long = shell("x", "head -c 3000000 /dev/urandom | base64 -w 0");
    long["config"]["output_limit"] = json!(8_000_000);
    let long = pipeline("long", [long], []);
    client.create_pipeline(&long).await;
    let mut node = with(calls("map", "long", json!(null)), "retry", quick_retry(1));
    node["config"]["for_each"] = json!([1, 2, 3, 4, 5, 6]);
    let run =
        client.run_pipeline(pipeline("too-long", [node], []), json!({})).await.expect("failed");
    let message = run.error["message"].as_str().expect("a message");
    assert!(message.contains("16777216 are the most"), "{message}");
    fleet.finish().await;
}

/// The workers die again and again; no item is done twice by the record, and none is missing.
#[tokio::test]
async fn a_map_survives_the_death_of_all_workers() {
    let target = HttpTarget::start().await;
    let mut fleet = TestFleet::start(two_workers()).await;
    let client = fleet.client();
    target.answers("/slow", [Reply::json(&json!(1)).after(Duration::from_millis(100))]);
    client.create_pipeline(&pipeline("each", [call("x", &target.url("/slow"))], [])).await;
    client.create_pipeline(&map("mapped", json!({"max_concurrency": 8}))).await;
    let items: Vec<u32> = (0..60).collect();
    let run = client.submit("mapped", json!({"items": items})).await;
    for round in 1..=2 {
        eventually(Duration::from_secs(60), "some children to end", async || {
            let ended = client.run(&run).await.node("map").waiting["ended"].as_i64().unwrap_or(0);
            if ended >= round * 10 { Ok(()) } else { Err(ended) }
        })
        .await;
        kill_all(&mut fleet, 2 * round as usize);
        fleet.add(Role::Worker, &[]);
        fleet.add(Role::Worker, &[]);
    }
    let ended = client.wait_for(&run, Duration::from_secs(90)).await.expect("completed");
    assert_eq!(ended.output.as_array().map_or(0, Vec::len), 60);
    assert_eq!(client.list(&format!("/v1/runs?parent={run}&limit=200")).await.len(), 60);
    fleet.finish().await;
}

#[tokio::test]
#[ignore = "takes longer than ten seconds"]
async fn a_map_of_ten_thousand_items_survives_the_death_of_all_workers() {
    let mut fleet = TestFleet::start(FleetOptions { concurrency: 64, ..two_workers() }).await;
    let client = fleet.client();
    client
        .create_pipeline(&pipeline("each", [echo("x", json!({"n": "{{ input.index }}"}))], []))
        .await;
    client.create_pipeline(&map("large", json!({"max_concurrency": 500}))).await;
    let items: Vec<u32> = (0..10_000).collect();
    let began = Instant::now();
    let run = client.submit("large", json!({"items": items})).await;
    eventually(Duration::from_secs(120), "a third of the children to end", async || {
        let ended = client.run(&run).await.node("map").waiting["ended"].as_i64().unwrap_or(0);
        if ended >= 3_000 { Ok(()) } else { Err(ended) }
    })
    .await;
    let ended = client.run(&run).await.node("map").waiting["ended"].as_i64();
    assert!(ended.is_some_and(|ended| ended < 10_000), "{ended:?}: it is under way");
    kill_all(&mut fleet, 2);
    fleet.add(Role::Worker, &[]);
    fleet.add(Role::Worker, &[]);
    client.wait_for(&run, Duration::from_secs(300)).await.expect("completed");
    let time = began.elapsed();
    let output = client.node(&run, "map").await["output"].clone();
    let output = output.as_array().expect("a list");
    assert_eq!(output.len(), 10_000);
    assert!((0..).zip(output).all(|(index, one)| one["n"] == index), "the order");
    let children = "select count(*) from children where parent_id = $1::text::uuid";
    let children: i64 = sqlx::query_scalar(children)
        .bind(&run)
        .fetch_one(fleet.database().pool())
        .await
        .expect("children can be counted");
    assert_eq!(children, 10_000, "no item has a second child");
    Entry::beside("a_map_of_ten_thousand_items").seen(format!(
        "10,000 child runs of one map in {} s, both workers killed in its middle",
        time.as_secs()
    ));
    fleet.finish().await;
}
