//! How far the lines that a run's nodes print have been told.

use std::collections::BTreeMap;

use common::clock;
use common::node_run::NodeState;
use common::store::events::Changes;
use common::store::node_logs::{LogLine, Read};
use serde_json::{Value, json};
use uuid::Uuid;

use super::teller::Told;

/// How many lines are read at a time.
pub(super) const PAGE: i64 = 500;

/// Which nodes' lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// Those that ended: their lines come before the event of their end.
    Ended,
    /// Those that run.
    Running,
}

/// The nodes that have printed, or may.
#[derive(Debug, Default)]
pub(super) struct Reader {
    nodes: BTreeMap<String, Place>,
}

#[derive(Debug)]
struct Place {
    attempt: i32,
    seq: i64,
    is_running: bool,
    /// There may be lines that were not read.
    is_open: bool,
}

impl Reader {
    /// Takes note of which nodes run, and which ended.
    pub(super) fn heed(&mut self, changes: &Changes) {
        for node in changes.nodes.0.iter().filter(|node| node.attempt > 0) {
            let new = Place { attempt: 0, seq: 0, is_running: false, is_open: false };
            let place = self.nodes.entry(node.node.clone()).or_insert(new);
            place.is_running = node.state == NodeState::Running;
            place.is_open = true;
        }
    }

    /// Of a stream that goes on: nodes that began to run before what it has seen.
    pub(super) fn heed_running(&mut self, mut all: Changes) {
        all.nodes.0.retain(|node| node.state == NodeState::Running);
        self.heed(&all);
    }

    pub(super) fn any(&self, whose: Whose) -> bool {
        self.open(whose).next().is_some()
    }

    /// From where to read on.
    pub(super) fn places(&self, whose: Whose) -> Vec<Read> {
        self.open(whose)
            .map(|(node, place)| Read {
                node: node.clone(),
                attempt: place.attempt,
                seq: place.seq,
            })
            .collect()
    }

    fn open(&self, whose: Whose) -> impl Iterator<Item = (&String, &Place)> {
        self.nodes.iter().filter(move |(_, place)| {
            place.is_open && place.is_running == (whose == Whose::Running)
        })
    }

    /// The events of the lines that were read: one for those of an attempt that follow each other.
    pub(super) fn tell(&mut self, run: Uuid, whose: Whose, lines: &[LogLine]) -> Vec<Told> {
        for line in lines {
            if let Some(place) = self.nodes.get_mut(&line.node) {
                (place.attempt, place.seq) = (line.attempt, line.seq);
            }
        }
        let is_all = i64::try_from(lines.len()).is_ok_and(|count| count < PAGE);
        if is_all && whose == Whose::Ended {
            self.nodes.values_mut().filter(|place| !place.is_running).for_each(|place| {
                place.is_open = false;
            });
        }
        lines
            .chunk_by(|a, b| (&a.node, a.attempt) == (&b.node, b.attempt))
            .map(|lines| event(run, lines))
            .collect()
    }
}

fn event(run: Uuid, lines: &[LogLine]) -> Told {
    let told: Vec<Value> = lines
        .iter()
        .map(|line| {
            json!({"seq": line.seq, "stream": line.stream, "at": clock::text(&line.at), "text": line.text})
        })
        .collect();
    let data = json!({
        "run": run, "node": lines[0].node, "attempt": lines[0].attempt, "lines": told,
    });
    Told { name: "node.log".to_owned(), id: None, data }
}

#[cfg(test)]
mod tests {
    use common::node_log::Stream;

    use super::*;

    fn changes(nodes: &[(&str, &str, i32)]) -> Changes {
        let nodes: Vec<Value> = nodes
            .iter()
            .map(|(node, state, attempt)| json!({"node": node, "state": state, "attempt": attempt, "seq": 1}))
            .collect();
        Changes {
            state: common::run::RunState::Running,
            seq: 1,
            error: None,
            at: None,
            nodes: serde_json::from_value(json!(nodes)).expect("node runs"),
        }
    }

    fn line(node: &str, attempt: i32, seq: i64) -> LogLine {
        LogLine {
            node: node.to_owned(),
            attempt,
            seq,
            stream: Stream::Stdout,
            at: Default::default(),
            text: String::new(),
        }
    }

    fn read(node: &str, attempt: i32, seq: i64) -> Read {
        Read { node: node.to_owned(), attempt, seq }
    }

    #[test]
    fn what_runs_is_read_on_and_what_ended_is_read_out() {
        let mut reader = Reader::default();
        reader.heed(&changes(&[("a", "running", 1), ("b", "completed", 1), ("c", "skipped", 0)]));
        assert_eq!(reader.places(Whose::Running), [read("a", 0, 0)]);
        assert_eq!(reader.places(Whose::Ended), [read("b", 0, 0)]);
        reader.tell(Uuid::nil(), Whose::Running, &[line("a", 1, 1), line("a", 1, 2)]);
        reader.tell(Uuid::nil(), Whose::Ended, &[]);
        assert_eq!(reader.places(Whose::Running), [read("a", 1, 2)]);
        assert!(!reader.any(Whose::Ended), "nothing more comes of it");
        reader.heed(&changes(&[("a", "retrying", 1)]));
        assert_eq!(reader.places(Whose::Ended), [read("a", 1, 2)]);
    }

    #[test]
    fn a_full_page_may_not_be_all() {
        let mut reader = Reader::default();
        reader.heed(&changes(&[("a", "failed", 2)]));
        let page: Vec<_> =
            (1..=PAGE).map(|seq| line("a", if seq < 9 { 1 } else { 2 }, seq)).collect();
        let told = reader.tell(Uuid::nil(), Whose::Ended, &page);
        assert_eq!(told.len(), 2, "an event for each attempt");
        assert_eq!(reader.places(Whose::Ended), [read("a", 2, PAGE)]);
    }
}
