//! Which events are told of what changed, in which order, under which ids.

use common::clock;
use common::run::RunState;
use common::store::events::{Changes, NodeChange};
use serde_json::{Value, json};
use uuid::Uuid;

/// One event.
#[derive(Debug, PartialEq)]
pub(super) struct Told {
    pub(super) name: String,
    /// All up to this count has been told: a client that comes back with it misses nothing. Lines have none.
    pub(super) id: Option<i64>,
    pub(super) data: Value,
}

/// How far a stream has told a run.
pub(super) struct Teller {
    run: Uuid,
    seen: i64,
    state: Option<RunState>,
}

impl Teller {
    /// Nothing is told yet that changed after `seen`.
    pub(super) fn new(run: Uuid, seen: i64) -> Self {
        Self { run, seen, state: None }
    }

    pub(super) fn run(&self) -> Uuid {
        self.run
    }

    pub(super) fn seen(&self) -> i64 {
        self.seen
    }

    pub(super) fn told_the_end(&self) -> bool {
        self.state.is_some_and(RunState::is_terminal)
    }

    /// The events of `changes`: a run begins before its nodes do, and ends after them.
    pub(super) fn tell(&mut self, changes: &Changes) -> Vec<Told> {
        let nodes = &changes.nodes.0;
        let is_new = self.state.replace(changes.state) != Some(changes.state);
        let is_end = changes.state.is_terminal();
        let mut told = Vec::with_capacity(nodes.len() + 1);
        if is_new && !is_end {
            let before_nodes = nodes.first().map_or(changes.seq, |node| node.seq - 1);
            told.push(self.of_run(changes, before_nodes));
        }
        for (at, node) in nodes.iter().enumerate() {
            // Of several with one count, only the last has told it all.
            let is_last = nodes.get(at + 1).is_none_or(|next| next.seq > node.seq);
            told.push(self.of_node(node, if is_last { node.seq } else { node.seq - 1 }));
        }
        if is_new && is_end {
            told.push(self.of_run(changes, changes.seq));
        }
        self.seen = changes.seq;
        told
    }

    fn of_run(&self, changes: &Changes, id: i64) -> Told {
        let data = json!({
            "run": self.run, "node": null, "state": changes.state.name(), "attempt": null,
            "at": changes.at.as_ref().map(clock::text), "error": changes.error,
        });
        Told { name: format!("run.{}", changes.state.name()), id: Some(id), data }
    }

    fn of_node(&self, node: &NodeChange, id: i64) -> Told {
        let data = json!({
            "run": self.run, "node": node.node, "state": node.state.name(), "attempt": node.attempt,
            "at": node.at.as_ref().map(clock::text), "error": node.error,
        });
        Told { name: format!("node.{}", node.state.name()), id: Some(id), data }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `(state, seq, [(node, state, seq)])`
    fn changes(state: &str, seq: i64, nodes: &[(&str, &str, i64)]) -> Changes {
        let nodes: Vec<Value> = nodes
            .iter()
            .map(|(node, state, seq)| json!({"node": node, "state": state, "attempt": 1, "seq": seq}))
            .collect();
        Changes {
            state: serde_json::from_value(json!(state)).expect("a state"),
            seq,
            error: None,
            at: None,
            nodes: serde_json::from_value(json!(nodes)).expect("node runs"),
        }
    }

    fn told(teller: &mut Teller, changes: &Changes) -> Vec<(String, i64)> {
        teller.tell(changes).into_iter().filter_map(|told| Some((told.name, told.id?))).collect()
    }

    fn events(expected: &[(&str, i64)]) -> Vec<(String, i64)> {
        expected.iter().map(|(name, id)| ((*name).to_owned(), *id)).collect()
    }

    #[test]
    fn a_run_begins_before_its_nodes_and_ends_after_them() {
        let mut teller = Teller::new(Uuid::nil(), 0);
        let queued = changes("queued", 1, &[]);
        assert_eq!(told(&mut teller, &queued), events(&[("run.queued", 1)]));
        let running = changes("running", 3, &[("a", "running", 2), ("b", "queued", 3)]);
        let expected = [("run.running", 1), ("node.running", 2), ("node.queued", 3)];
        assert_eq!(told(&mut teller, &running), events(&expected));
        let later = changes("running", 4, &[("a", "completed", 4)]);
        assert_eq!(told(&mut teller, &later), events(&[("node.completed", 4)]));
        assert!(!teller.told_the_end());
        let end = changes("completed", 6, &[("b", "completed", 5)]);
        assert_eq!(told(&mut teller, &end), events(&[("node.completed", 5), ("run.completed", 6)]));
        assert!(teller.told_the_end());
    }

    #[test]
    fn of_several_with_one_count_only_the_last_says_it() {
        let mut teller = Teller::new(Uuid::nil(), 4);
        let both =
            changes("running", 7, &[("a", "skipped", 6), ("b", "skipped", 6), ("c", "queued", 7)]);
        let expected =
            [("run.running", 5), ("node.skipped", 5), ("node.skipped", 6), ("node.queued", 7)];
        assert_eq!(told(&mut teller, &both), events(&expected));
    }
}
