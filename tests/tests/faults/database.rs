//! A database that ends sessions, restarts, and is killed.

use std::cell::RefCell;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures::future::Either;
use serde_json::json;
use tests::client::Client;
use tests::fleet::{FleetOptions, TestFleet};
use tests::http_target::{HttpTarget, Reply};
use tests::ledger::Entry;
use tests::servers::{PrivatePostgres, Servers};
use tests::wait::{eventually, seen};

use super::{most_effects, three_calls};
use crate::definitions::*;

/// Submits one run: its id when it was accepted, none when the api says that it cannot now.
async fn submit(client: &Client, pipeline: &str) -> Option<String> {
    let path = format!("/v1/pipelines/{pipeline}/runs");
    let answer = client.post(&path, &json!({"input": {}})).await;
    match answer.status {
        202 => Some(answer.body["id"].as_str().expect("an id").to_owned()),
        503 => {
            answer.problem(503);
            None
        }
        other => panic!("{other}: {}", answer.text),
    }
}

/// Waits, through an api that may say for a while that it cannot answer.
async fn completed(client: &Client, ids: &[String]) {
    for id in ids {
        eventually(Duration::from_secs(60), "an accepted run to complete", async || {
            let answer = client.get(&format!("/v1/runs/{id}?wait=5s")).await;
            seen(answer.body["state"] == "completed", answer.text)
        })
        .await;
    }
}

async fn terminated(entry: &mut Entry, rounds: usize) -> String {
    let target = HttpTarget::start().await;
    target.answers("/effect", [Reply::status(200).after(Duration::from_millis(5))]);
    let fleet = TestFleet::start(FleetOptions { workers: 2, ..FleetOptions::default() }).await;
    let client = fleet.client();
    client.create_pipeline(&three_calls(&target, "/effect")).await;
    let (mut accepted, mut refused) = (Vec::new(), 0);
    for _ in 0..rounds {
        fleet
            .database()
            .execute(
                "select pg_terminate_backend(pid) from pg_stat_activity
                 where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()",
            )
            .await;
        let round = Instant::now();
        while round.elapsed() < Duration::from_millis(500) {
            match submit(&client, "p").await {
                Some(id) => accepted.push(id),
                None => refused += 1,
            }
            // Load, but not more than two cores carry beside everything else.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    entry.broken();
    fleet.ready().await;
    assert!(accepted.len() > 2 * rounds, "{} accepted", accepted.len());
    completed(&client, &accepted).await;
    entry.recovered();
    let most = most_effects(&target.effects("/effect"), 3 * accepted.len());
    fleet.all_ended(&accepted).await;
    fleet.finish().await;
    format!(
        "{rounds} times: {} accepted, {refused} answered 503; all accepted completed; at most {most} calls under a key",
        accepted.len()
    )
}

#[tokio::test]
async fn fault_22_database_sessions_are_terminated_again_and_again() {
    let mut entry = tests::entry!();
    let seen = terminated(&mut entry, 6).await;
    entry.seen(seen);
}

#[tokio::test]
#[ignore = "takes longer than ten seconds"]
async fn fault_22_database_sessions_are_terminated_for_thirty_seconds() {
    let mut entry = tests::entry!();
    let seen = terminated(&mut entry, 60).await;
    entry.seen(seen);
}

#[tokio::test]
#[ignore = "breaks a PostgreSQL of its own"]
async fn fault_23_postgres_is_killed_and_restarted_under_load() {
    let mut entry = tests::entry!();
    let postgres = PrivatePostgres::start().await;
    let servers = Servers::shared().await.with_postgres(&postgres);
    let options = FleetOptions { workers: 2, servers: Some(servers), ..FleetOptions::default() };
    let fleet = TestFleet::start(options).await;
    let client = fleet.client();
    client.create_pipeline(&fan("fan", 10)).await;
    let answers = RefCell::new(Vec::new());
    for round in 0..3 {
        let load = async {
            loop {
                let some = futures::future::join_all((0..5).map(|_| submit(&client, "fan"))).await;
                answers.borrow_mut().extend(some);
            }
        };
        let restart = async {
            let before = answers.borrow().len();
            eventually(Duration::from_secs(20), "load", async || {
                let count = answers.borrow().len();
                seen(count >= before + 20, count)
            })
            .await;
            if round == 1 {
                postgres.kill().await;
                postgres.up().await;
            } else {
                postgres.restart().await;
            }
            Instant::now()
        };
        let up_at = match futures::future::select(pin!(restart), pin!(load)).await {
            Either::Left((up_at, _)) => up_at,
            Either::Right((never, _)) => never,
        };
        fleet.ready().await;
        entry.recovered_in(up_at.elapsed());
    }
    let answers = answers.into_inner();
    let accepted: Vec<String> = answers.iter().flatten().cloned().collect();
    let refused = answers.len() - accepted.len();
    completed(&client, &accepted).await;
    fleet.all_ended(&accepted).await;
    fleet.finish().await;
    entry.seen(format!("{} runs of 12 nodes accepted, {refused} answered 503; all accepted completed; recovery is until all processes are ready", accepted.len()));
}
