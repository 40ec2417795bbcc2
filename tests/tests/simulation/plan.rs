//! Small random graphs of every node type, as a definition and as the interpreter reads them.

use rand::RngExt;
use rand::rngs::SmallRng;
use serde_json::{Value, json};

use crate::interpreter::{Edge, Kind, Plan, Test, When, name};

pub(super) fn plan(random: &mut SmallRng) -> Plan {
    let count = random.random_range(1..=7);
    let (mut nodes, mut edges) = (Vec::new(), Vec::new());
    for node in 0..count {
        let mut is_root = true;
        for from in 0..node {
            if random.random_bool(1.6 / f64::from(node as u32 + 1)) {
                edges.push(edge(random, from, node));
                is_root = false;
            }
        }
        nodes.push(kind(random, is_root));
    }
    Plan { nodes, edges, fail_fast: random.random_bool(0.15) }
}

fn kind(random: &mut SmallRng, is_root: bool) -> Kind {
    match random.random_range(0..100) {
        0..20 if is_root => Kind::Trigger,
        0..45 => Kind::Value(1),
        45..55 => Kind::Fails,
        55..70 => Kind::Flaky(Some(random.random_range(1..=2))),
        70..80 => Kind::Parallel,
        80..86 => Kind::Delay,
        86..92 => Kind::Approval,
        _ => Kind::Condition(constant(random)),
    }
}

fn constant(random: &mut SmallRng) -> Test {
    match random.random_range(0..10) {
        0 => Test::Undefined,
        _ => Test::Always(random.random_bool(0.6)),
    }
}

fn edge(random: &mut SmallRng, from: usize, to: usize) -> Edge {
    let when = match random.random_range(0..10) {
        0..6 => When::Success,
        6..8 => When::Failure,
        _ => When::Always,
    };
    let condition = random.random_bool(0.25).then(|| constant(random));
    Edge { from, to, when, condition }
}

pub(super) fn definition(plan: &Plan) -> Value {
    let nodes: Vec<Value> = plan.nodes.iter().enumerate().map(|(n, kind)| node(n, kind)).collect();
    let edges: Vec<Value> = plan.edges.iter().map(shown).collect();
    json!({"name": "simulated", "nodes": nodes, "edges": edges, "fail_fast": plan.fail_fast})
}

fn node(node: usize, kind: &Kind) -> Value {
    let (node_type, config) = match kind {
        Kind::Trigger => ("trigger", json!({})),
        Kind::Parallel => ("parallel", json!({})),
        Kind::Delay => ("delay", json!({"duration": "3s"})),
        Kind::Approval => ("approval", json!({})),
        Kind::Condition(test) => ("condition", json!({"expression": expression(test)})),
        Kind::Value(_) | Kind::Copy(_) | Kind::Fails | Kind::Flaky(_) => {
            ("action", json!({"action": "echo", "value": 1}))
        }
    };
    json!({"id": name(node), "type": node_type, "config": config})
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

fn expression(test: &Test) -> &'static str {
    match test {
        Test::Always(true) => "true",
        Test::Always(false) => "false",
        _ => "input.there_is_no_such_thing",
    }
}
