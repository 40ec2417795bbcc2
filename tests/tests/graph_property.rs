//! Random graphs, executed by the engine and by the interpreter, end the same.
//!
//! `GATHERING_SEED` repeats one graph; `GATHERING_GRAPHS` says how many are tried.

use std::collections::BTreeSet;
use std::fmt::Write;

use futures::StreamExt;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tests::client::Client;
use tests::fleet::{FleetOptions, TestFleet};
use tests::http_target::{HttpTarget, Reply};

use crate::interpreter::{Edge, End, Kind, Plan, Test, When, interpret, name};

fn setting<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

#[tokio::test]
async fn random_graphs_end_as_the_interpreter_says() {
    let fleet = TestFleet::start(FleetOptions { workers: 2, ..FleetOptions::default() }).await;
    let target = HttpTarget::start().await;
    let seeds: Vec<u64> = match setting("GATHERING_SEED") {
        Some(seed) => vec![seed],
        None => (0..setting("GATHERING_GRAPHS").unwrap_or(300)).map(|_| rand::random()).collect(),
    };
    let client = fleet.client();
    let (client, target) = (&client, &target);
    let failures: Vec<String> = futures::stream::iter(seeds)
        .map(|seed| async move { differs(client, target, seed).await })
        .buffer_unordered(8)
        .filter_map(futures::future::ready)
        .collect()
        .await;
    assert!(failures.is_empty(), "{} graphs differ; the first:\n{}", failures.len(), failures[0]);
    fleet.finish().await;
}

/// Says how the engine and the interpreter differ about one graph, if they do.
async fn differs(client: &Client, target: &HttpTarget, seed: u64) -> Option<String> {
    let plan = plan(&mut SmallRng::seed_from_u64(seed));
    let pipeline = format!("g{seed}");
    let definition = definition(&plan, &pipeline, target);
    let input = json!({"value": 5});
    let expected = interpret(&plan, &input);
    let run = client.run_pipeline(definition.clone(), input).await;

    let mut difference = String::new();
    let stopped = plan.fail_fast && expected.run == End::Failed;
    if run.state != expected.run.name() {
        let _ = writeln!(
            difference,
            "the run is {}, not {}: {}",
            run.state,
            expected.run.name(),
            run.error
        );
    }
    if expected.run == End::Completed && plain(&run.output) != expected.output {
        let _ = writeln!(difference, "its output is {}, not {}", run.output, expected.output);
    }
    for (index, (end, output)) in expected.nodes.iter().enumerate() {
        let node = run.node(&name(index));
        // Under fail-fast it depends on time what is cut short; what is not must be as expected.
        let same = node.state == end.name() || (stopped && node.state == "cancelled");
        if !same || (node.state == "completed" && plain(&node.output) != *output) {
            let (state, is) = (&node.state, &node.output);
            let _ = writeln!(
                difference,
                "{} is {state} {is}, not {} {output}: {}",
                node.id,
                end.name(),
                node.error
            );
        }
    }
    if difference.is_empty() {
        return None;
    }
    Some(format!(
        "{difference}GATHERING_SEED={seed}\n{}",
        serde_json::to_string(&definition).unwrap_or_default()
    ))
}

/// Of a call's output, what the server said: status and headers are not the interpreter's business.
fn plain(output: &Value) -> Value {
    match output {
        Value::Object(members) if members.contains_key("status") => {
            json!({"body": members["body"]})
        }
        Value::Object(members) => {
            members.iter().map(|(name, value)| (name.clone(), plain(value))).collect()
        }
        other => other.clone(),
    }
}

fn plan(random: &mut SmallRng) -> Plan {
    let count: usize = random.random_range(5..=25);
    let mut edges: Vec<Edge> = Vec::new();
    let mut nodes: Vec<Kind> = Vec::new();
    for node in 0..count {
        let mut sources = BTreeSet::new();
        if node > 0 {
            for _ in 0..random.random_range(0..=3) {
                // Mostly near, so that graphs grow deep.
                let from = if random.random_bool(0.7) { node.saturating_sub(4) } else { 0 };
                sources.insert(random.random_range(from..node));
            }
        }
        let upstream = upstream(&edges, sources.clone());
        for from in sources.iter().copied() {
            let before = strictly_upstream(&edges, from);
            edges.push(edge(random, from, node, &nodes[from], &before));
        }
        nodes.push(kind(random, &upstream, sources.is_empty()));
    }
    Plan { nodes, edges, fail_fast: random.random_bool(0.1) }
}

/// The nodes that an expression of a node with these sources may name.
fn upstream(edges: &[Edge], mut all: BTreeSet<usize>) -> Vec<usize> {
    // Sources have lower numbers, so one walk downwards finds all.
    for node in (0..=all.last().copied().unwrap_or(0)).rev() {
        if all.contains(&node) {
            all.extend(edges.iter().filter(|edge| edge.to == node).map(|edge| edge.from));
        }
    }
    all.into_iter().collect()
}

/// The nodes, other than its source, that the condition of an edge may name.
fn strictly_upstream(edges: &[Edge], source: usize) -> Vec<usize> {
    upstream(edges, edges.iter().filter(|edge| edge.to == source).map(|edge| edge.from).collect())
}

fn kind(random: &mut SmallRng, upstream: &[usize], root: bool) -> Kind {
    match random.random_range(0..100) {
        0..10 if root => Kind::Trigger,
        0..45 => Kind::Value(random.random_range(0..10)),
        45..57 if !upstream.is_empty() => {
            Kind::Copy(upstream[random.random_range(0..upstream.len())])
        }
        57..67 => Kind::Fails,
        67..70 => Kind::Flaky([Some(0), Some(1), Some(2), None][random.random_range(0..4)]),
        70..76 => Kind::Parallel,
        76..79 => Kind::Delay,
        79..100 => Kind::Condition(test(random, upstream)),
        _ => Kind::Value(1),
    }
}

fn test(random: &mut SmallRng, upstream: &[usize]) -> Test {
    let some = |random: &mut SmallRng| upstream[random.random_range(0..upstream.len())];
    match random.random_range(0..100) {
        0..40 if !upstream.is_empty() => Test::HasOutput(some(random)),
        40..70 if !upstream.is_empty() => Test::Greater(some(random), random.random_range(0..10)),
        70..74 => Test::Undefined,
        74..77 => Test::NotBoolean,
        _ => Test::Always(random.random_bool(0.6)),
    }
}

fn edge(random: &mut SmallRng, from: usize, to: usize, source: &Kind, upstream: &[usize]) -> Edge {
    let when = match random.random_range(0..100) {
        0..70 => When::Success,
        70..85 => When::Failure,
        _ => When::Always,
    };
    let condition = match (random.random_range(0..100), source) {
        (0..35, Kind::Condition(_)) if when == When::Success => Some(Test::NotResult),
        (0..15, Kind::Value(_) | Kind::Copy(_) | Kind::Trigger) => {
            Some(Test::OutputGreater(random.random_range(0..10)))
        }
        (15..30, _) => Some(test(random, upstream)),
        _ => None,
    };
    Edge { from, to, when, condition }
}

fn definition(plan: &Plan, pipeline: &str, target: &HttpTarget) -> Value {
    let nodes: Vec<_> = plan
        .nodes
        .iter()
        .enumerate()
        .map(|(index, kind)| node(&name(index), kind, pipeline, target))
        .collect();
    let edges: Vec<_> = plan.edges.iter().map(shown).collect();
    json!({"name": pipeline, "nodes": nodes, "edges": edges, "fail_fast": plan.fail_fast})
}

fn node(id: &str, kind: &Kind, pipeline: &str, target: &HttpTarget) -> Value {
    let (node_type, config) = match kind {
        Kind::Trigger => ("trigger", json!({})),
        Kind::Value(value) => ("action", json!({"action": "echo", "value": value})),
        Kind::Copy(of) => (
            "action",
            json!({"action": "echo", "value": format!("{{{{ nodes.{}.output.value }}}}", name(*of))}),
        ),
        Kind::Fails => {
            ("action", json!({"action": "echo", "value": "{{ input.there_is_no_such_thing }}"}))
        }
        Kind::Flaky(failures) => {
            let path = format!("/{pipeline}/{id}");
            let success = failures.map(|_| Reply::json(&json!(7)));
            let down = (0..failures.unwrap_or(1)).map(|_| Reply::status(503));
            target.answers(&path, down.chain(success));
            ("action", json!({"action": "call_api", "method": "POST", "url": target.url(&path)}))
        }
        Kind::Parallel => ("parallel", json!({})),
        Kind::Delay => ("delay", json!({"duration": "20ms"})),
        Kind::Approval => ("approval", json!({"deadline": "20ms", "default": "approve"})),
        Kind::Condition(test) => ("condition", json!({"expression": expression(test)})),
    };
    let retry = json!({"initial_interval": "10ms", "max_interval": "20ms"});
    json!({"id": id, "type": node_type, "config": config, "retry": retry})
}

fn shown(edge: &Edge) -> Value {
    let when = match edge.when {
        When::Success => "success",
        When::Failure => "failure",
        When::Always => "always",
    };
    let mut shown = json!({"from": name(edge.from), "to": name(edge.to), "when": when});
    if let Some(test) = &edge.condition {
        shown["condition"] = json!(expression(test));
    }
    shown
}

fn expression(test: &Test) -> String {
    match test {
        Test::Always(result) => result.to_string(),
        Test::Greater(node, than) => format!("nodes.{}.output.value > {than}", name(*node)),
        Test::HasOutput(node) => format!("nodes.{}.output is not none", name(*node)),
        Test::Undefined => "input.there_is_no_such_thing".to_owned(),
        Test::NotBoolean => "1 + 1".to_owned(),
        Test::OutputGreater(than) => format!("output.value > {than}"),
        Test::NotResult => "not output.result".to_owned(),
    }
}
