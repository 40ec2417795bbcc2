//! A simulation: workers, a broker and leaders that drop, duplicate, reorder and delay messages, and crash between any
//! two steps, around the decisions of the product, in an order that a seed decides.
//!
//! `GATHERING_SEED` repeats one schedule, and tells its steps; `GATHERING_SCHEDULES` says how many are tried.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::context::{RunContext, RunRow};
use common::job::{Job, Reason, Task};
use futures::FutureExt;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use serde_json::{Value, json};
use tests::database::Database;
use tests::ledger::{Entry, seconds};
use tests::servers::Servers;
use uuid::Uuid;

use self::model::Model;
use self::postgres::Mirror;
use self::world::World;
use crate::interpreter::{End, Plan, interpret, name};

mod model;
mod plan;
mod postgres;
mod world;

fn setting<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

/// A run of the plan, accepted at `now`.
fn accepted(definition: &Value, pipeline: Uuid, now: i64) -> Model {
    let graph = common::pipeline::stored_graph(&definition.to_string()).expect("plans are sound");
    let row = RunRow {
        id: Uuid::now_v7(),
        pipeline_id: Some(pipeline),
        pipeline: Some("simulated".to_owned()),
        version: Some(1),
        action: None,
        input: json!({}),
        trigger: json!({}),
        tags: Vec::new(),
        created_at: model::instant(now),
        traceparent: None,
    };
    let job = Job {
        id: Uuid::now_v7(),
        task: Task::RunStart { run: row.id },
        reason: Reason::Submitted,
        pipeline: row.pipeline.clone(),
        version: row.version,
        traceparent: None,
    };
    Model::new(Arc::new(RunContext::new(row, Arc::new(graph))), job, now)
}

/// Runs one schedule; how many steps it took. With a mirror, Postgres has to agree after each of them.
async fn schedule(seed: u64, mut mirror: Option<&mut Mirror>, is_told: bool) -> usize {
    let mut random = SmallRng::seed_from_u64(seed);
    let plan = plan::plan(&mut random);
    let definition = plan::definition(&plan);
    let now = match &mut mirror {
        Some(mirror) => mirror.reset().await,
        None => 1_800_000_000_000,
    };
    let pipeline = Uuid::now_v7();
    let model = accepted(&definition, pipeline, now);
    if let Some(mirror) = &mut mirror {
        mirror.accept(&model, &definition, pipeline).await;
    }
    let mut world = World::new(&plan, model, mirror, random, is_told);
    world.run().await;
    check(&world, &plan);
    world.steps.len()
}

/// The oracle: the run has ended, each node run once (the model refuses a second end), as the interpreter says, with an
/// effect where there must be one, and none without an attempt.
fn check(world: &World<'_>, plan: &Plan) {
    assert!(world.model.state.is_terminal());
    let expected = interpret(plan, &json!({}));
    let (nodes, differs) = (&world.model.nodes, world.may_differ());
    for (index, row) in nodes.iter().enumerate() {
        let node = index as u32;
        assert!(row.state.is_terminal(), "{} is {:?}", name(index), row.state);
        let effects = world.effects.get(&node).copied().unwrap_or(0);
        assert!(
            effects <= row.attempt,
            "{}: {effects} effects, attempt {}",
            name(index),
            row.attempt
        );
        if world.is_executed(node) && row.state == common::node_run::NodeState::Completed {
            assert!(effects > 0, "{} completed and was never executed", name(index));
        }
        let end = expected.nodes[index].0;
        assert!(
            differs || row.state.name() == end.name(),
            "{} is {:?}, not {end:?}",
            name(index),
            row.state
        );
    }
    let run = if expected.run == End::Completed { "completed" } else { "failed" };
    assert!(
        differs || world.model.state.name() == run,
        "the run is {:?}, not {run}",
        world.model.state
    );
}

fn failed(seed: u64) -> String {
    format!("the schedule of GATHERING_SEED={seed} fails; repeat it with that variable set")
}

#[test]
fn ten_thousand_schedules_end_as_they_must() {
    let runtime = || tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    if let Some(seed) = setting("GATHERING_SEED") {
        runtime().block_on(schedule(seed, None, true));
        return;
    }
    let count: u64 = setting("GATHERING_SCHEDULES").unwrap_or(10_000);
    let (first, next, steps) = (rand::random::<u64>(), AtomicU64::new(0), AtomicU64::new(0));
    let began = Instant::now();
    std::thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| {
                let runtime = runtime();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    let seed = first.wrapping_add(number);
                    let run = || runtime.block_on(schedule(seed, None, false));
                    match std::panic::catch_unwind(AssertUnwindSafe(run)) {
                        Ok(taken) => steps.fetch_add(taken as u64, Ordering::Relaxed),
                        Err(_) => panic!("{}", failed(seed)),
                    };
                }
            });
        }
    });
    Entry::beside("ten_thousand_schedules_end_as_they_must").seen(format!(
        "{count} schedules from seed {first} on, {} steps, in {}",
        steps.load(Ordering::Relaxed),
        seconds(began.elapsed())
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_schedules_agree_with_postgres() {
    let database = Database::create(&Servers::shared().await.database_url).await;
    let mut mirror = Mirror::on(database).await;
    if let Some(seed) = setting("GATHERING_SEED") {
        schedule(seed, Some(&mut mirror), true).await;
        return;
    }
    let count: u64 = setting::<u64>("GATHERING_SCHEDULES").unwrap_or(10_000) / 50;
    let (first, mut steps, began) = (rand::random::<u64>(), 0, Instant::now());
    for number in 0..count {
        let seed = first.wrapping_add(number);
        let run = schedule(seed, Some(&mut mirror), false);
        let bounded = tokio::time::timeout(Duration::from_secs(60), run);
        match AssertUnwindSafe(bounded).catch_unwind().await {
            Ok(Ok(taken)) => steps += taken,
            Ok(Err(_)) => panic!("{}: it takes too long", failed(seed)),
            Err(_) => panic!("{}", failed(seed)),
        }
    }
    Entry::beside("two_hundred_schedules_agree_with_postgres").seen(format!(
        "{count} schedules from seed {first} on, compared after each of {steps} steps, in {}",
        seconds(began.elapsed())
    ));
}
