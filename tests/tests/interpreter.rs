//! What a run must come to: the rules of edges, written a second time, as plainly as possible.
//!
//! It shares no code with the engine. It walks the nodes in topological order, once, with all outcomes at hand.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// How a node or a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Completed,
    Failed,
    Skipped,
}

impl End {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// What a node does.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Trigger,
    /// Returns `{"value": n}`.
    Value(i64),
    /// Returns `{"value": v}` with the value of another node; fails when that one has none.
    Copy(usize),
    /// Fails for good.
    Fails,
    /// Calls a server that is unavailable so many times, then answers 7; `None`: always.
    Flaky(Option<u32>),
    Parallel,
    Delay,
    /// Waits until somebody decides, or its deadline comes, and completes either way.
    Approval,
    Condition(Test),
}

/// An expression whose value is known.
#[derive(Debug, Clone)]
pub(crate) enum Test {
    Always(bool),
    /// `nodes.<n>.output.value > k`; an error when that node has no such output.
    Greater(usize, i64),
    /// Whether a node has an output: never an error.
    HasOutput(usize),
    /// A name that is not there.
    Undefined,
    /// A value that is not a boolean.
    NotBoolean,
    /// On an edge: `output.value > k`.
    OutputGreater(i64),
    /// On an edge out of a condition: `not output.result`.
    NotResult,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Success,
    Failure,
    Always,
}

#[derive(Debug, Clone)]
pub(crate) struct Edge {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) when: When,
    pub(crate) condition: Option<Test>,
}

/// Nodes are numbered in a topological order.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) nodes: Vec<Kind>,
    pub(crate) edges: Vec<Edge>,
    pub(crate) fail_fast: bool,
}

/// How a run of a plan ends.
#[derive(Debug)]
pub(crate) struct Expected {
    pub(crate) nodes: Vec<(End, Value)>,
    pub(crate) run: End,
    pub(crate) output: Value,
}

/// What an edge is, once its source has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Taken,
    Broken,
    NotTaken,
    /// Its condition has no answer.
    Error,
}

struct Ended {
    end: End,
    output: Value,
    /// Skipped because of a broken edge.
    broken: bool,
    /// A failure edge of it was taken.
    handled: bool,
}

/// Interprets a plan whose runs have this input.
pub(crate) fn interpret(plan: &Plan, input: &Value) -> Expected {
    let mut ended: Vec<Ended> = Vec::new();
    let mut verdicts: BTreeMap<usize, Verdict> = BTreeMap::new();
    for node in 0..plan.nodes.len() {
        let incoming: Vec<_> =
            (0..plan.edges.len()).filter(|edge| plan.edges[*edge].to == node).collect();
        let all: Vec<_> = incoming.iter().map(|edge| verdicts[edge]).collect();
        let mut this = if all.contains(&Verdict::Error) {
            Ended { end: End::Failed, output: Value::Null, broken: false, handled: false }
        } else if all.contains(&Verdict::Broken)
            || (!all.is_empty() && !all.contains(&Verdict::Taken))
        {
            let broken = all.contains(&Verdict::Broken);
            Ended { end: End::Skipped, output: Value::Null, broken, handled: false }
        } else {
            execute(plan, node, input, &ended)
        };
        let outgoing = || (0..plan.edges.len()).filter(|edge| plan.edges[*edge].from == node);
        // Failure edges first: whether one is taken decides about the others.
        for edge in outgoing().filter(|edge| plan.edges[*edge].when == When::Failure) {
            let verdict = verdict(plan, edge, &this, &ended);
            this.handled |= verdict == Verdict::Taken;
            verdicts.insert(edge, verdict);
        }
        for edge in outgoing().filter(|edge| plan.edges[*edge].when != When::Failure) {
            verdicts.insert(edge, verdict(plan, edge, &this, &ended));
        }
        ended.push(this);
    }
    conclude(plan, ended)
}

fn conclude(plan: &Plan, ended: Vec<Ended>) -> Expected {
    let failed = ended.iter().any(|node| node.end == End::Failed && !node.handled);
    let is_sink = |node: usize| !plan.edges.iter().any(|edge| edge.from == node);
    let sinks: Vec<_> = (0..ended.len())
        .filter(|node| is_sink(*node) && ended[*node].end == End::Completed)
        .collect();
    let output = match sinks.as_slice() {
        [] => Value::Null,
        [only] => ended[*only].output.clone(),
        several => several.iter().map(|node| (name(*node), ended[*node].output.clone())).collect(),
    };
    Expected {
        nodes: ended.into_iter().map(|node| (node.end, node.output)).collect(),
        run: if failed { End::Failed } else { End::Completed },
        output,
    }
}

fn execute(plan: &Plan, node: usize, input: &Value, ended: &[Ended]) -> Ended {
    let completed = |output| Ended { end: End::Completed, output, broken: false, handled: false };
    let failed = Ended { end: End::Failed, output: Value::Null, broken: false, handled: false };
    match &plan.nodes[node] {
        Kind::Trigger => completed(input.clone()),
        Kind::Value(value) => completed(json!({"value": value})),
        Kind::Approval => completed(json!({"approved": true})),
        Kind::Copy(other) => match ended[*other].output.get("value") {
            Some(value) => completed(json!({"value": value})),
            None => failed,
        },
        Kind::Fails => failed,
        // Three attempts are the default.
        Kind::Flaky(Some(failures)) if *failures < 3 => completed(json!({"body": 7})),
        Kind::Flaky(_) => failed,
        Kind::Parallel | Kind::Delay => {
            let mut before = plan.edges.iter().filter(|edge| edge.to == node).map(|edge| edge.from);
            match (before.next(), before.next()) {
                (Some(only), None) => completed(ended[only].output.clone()),
                _ => completed(Value::Null),
            }
        }
        Kind::Condition(test) => match holds(test, &Value::Null, ended) {
            Some(result) => completed(json!({"result": result})),
            None => failed,
        },
    }
}

fn verdict(plan: &Plan, edge: usize, source: &Ended, ended: &[Ended]) -> Verdict {
    let edge = &plan.edges[edge];
    let as_it_says = match edge.when {
        When::Success => source.end == End::Completed,
        When::Failure => source.end == End::Failed,
        When::Always => true,
    };
    if !as_it_says {
        let breaks = match source.end {
            End::Failed => !source.handled,
            End::Skipped => source.broken,
            End::Completed => false,
        };
        return if edge.when == When::Success && breaks {
            Verdict::Broken
        } else {
            Verdict::NotTaken
        };
    }
    let holds = match &edge.condition {
        Some(test) => holds(test, &source.output, ended),
        None if edge.when == When::Success
            && matches!(plan.nodes[edge.from], Kind::Condition(_)) =>
        {
            Some(source.output["result"] == true)
        }
        None => Some(true),
    };
    match holds {
        Some(true) => Verdict::Taken,
        Some(false) => Verdict::NotTaken,
        None => Verdict::Error,
    }
}

/// None: an error. `output` is that of the edge's source, which is not among `ended` yet.
fn holds(test: &Test, output: &Value, ended: &[Ended]) -> Option<bool> {
    match test {
        Test::Always(result) => Some(*result),
        Test::Greater(node, than) => Some(ended[*node].output.get("value")?.as_i64()? > *than),
        Test::HasOutput(node) => Some(!ended[*node].output.is_null()),
        Test::OutputGreater(than) => Some(output.get("value")?.as_i64()? > *than),
        Test::NotResult => Some(!output.get("result")?.as_bool()?),
        Test::Undefined | Test::NotBoolean => None,
    }
}

/// The id of a node.
pub(crate) fn name(node: usize) -> String {
    format!("n{node}")
}
