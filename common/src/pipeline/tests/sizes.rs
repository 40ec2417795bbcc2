//! Limits, and the time that large definitions take.

use std::time::Instant;

use serde_json::{Value, json};

use super::{errors, with};
use crate::pipeline::check;
use crate::tool::tests::catalogue;

#[test]
fn limits_are_kept() {
    let nodes = |count: usize| -> Value {
        (0..count).map(|n| json!({"id": format!("n{n}"), "type": "parallel"})).collect()
    };
    let found = errors(&json!({"name": "n", "nodes": nodes(20_001)}));
    assert!(found[0].pointer == "/nodes" && found[0].detail.contains("at most 20000"), "{found:?}");
    let edges: Value = (0..50_001).map(|_| json!({"from": "n0", "to": "n1"})).collect();
    let found = errors(&json!({"name": "n", "nodes": nodes(2), "edges": edges}));
    assert!(found[0].pointer == "/edges" && found[0].detail.contains("at most 50000"), "{found:?}");
    let found = errors(&with("/description", json!("x".repeat(4 << 20))));
    assert!(
        found.len() == 1 && found[0].pointer.is_empty() && found[0].detail.contains("4 MiB"),
        "{found:?}"
    );
}

#[test]
fn large_definitions_are_checked_quickly() {
    let count = 20_000;
    let id = |n: usize| format!("n{n}");
    // Each node names one far before it, and its direct predecessor.
    let chain: Value = (0..count)
        .map(|n| {
            let mut config = json!({"action": "echo"});
            if n > 1 {
                config["x"] = json!(format!("{{{{ nodes.{}.output.x }}}}", id(n / 2)));
                config["y"] = json!(format!("a {{{{ nodes.{}.output }}}}", id(n - 1)));
            }
            json!({"id": id(n), "type": "action", "config": config})
        })
        .collect();
    let direct = (1..count).map(|n| (n - 1, n));
    let far = (1..count).flat_map(|n| [(n / 2, n), (n / 3, n)]).filter(|(from, to)| from + 1 < *to);
    let edges: Value = direct
        .chain(far)
        .take(50_000)
        .map(|(from, to)| json!({"from": id(from), "to": id(to)}))
        .collect();
    let mut definition = json!({"name": "big", "nodes": chain, "edges": edges});
    let tools = catalogue();
    let time = |definition: &Value| {
        let started = Instant::now();
        let outcome = check(definition, &tools);
        (outcome, started.elapsed())
    };
    let (outcome, taken) = time(&definition);
    assert_eq!(
        outcome.map(|checked| checked.definition.nodes.len()).map_err(|r| r.errors),
        Ok(count)
    );
    // Unoptimised, on a busy machine; a quadratic algorithm would take minutes.
    assert!(taken.as_secs() < 30, "took {taken:?}");
    println!("20,000 nodes and 50,000 edges were checked in {taken:?}");

    definition["edges"].as_array_mut().unwrap()[0] = json!({"from": id(count - 1), "to": id(0)});
    let (outcome, taken) = time(&definition);
    let errors = outcome.unwrap_err().errors;
    assert!(errors.iter().any(|error| error.detail.contains("cycle")), "{:?}", errors.first());
    assert!(errors.iter().all(|error| error.detail.len() < 1000));
    assert!(taken.as_secs() < 30, "took {taken:?}");

    for edge in definition["edges"].as_array_mut().unwrap() {
        edge["to"] = json!("n999999x");
    }
    let (outcome, taken) = time(&definition);
    let errors = outcome.unwrap_err().errors;
    assert!(
        errors.len() == 1001 && errors[1000].detail.contains("more errors"),
        "{:?}",
        errors.last()
    );
    assert!(taken.as_secs() < 30, "took {taken:?}");
}
