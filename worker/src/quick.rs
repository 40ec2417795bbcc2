//! How long nodes have taken here lately: quick ones are kept rather than sent.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use common::context::RunContext;
use common::graph::NodeIx;
use uuid::Uuid;

/// How many executions the mean is taken over.
const REMEMBERED: usize = 20;
/// How many there must have been before a node is taken for quick.
const ENOUGH: usize = 5;
/// A node is quick while its mean is below this.
const QUICK: Duration = Duration::from_millis(5);
/// How many nodes are remembered; past that all are forgotten, and learnt anew.
const NODES: usize = 50_000;

#[derive(Debug, Default)]
struct Recent {
    micros: [u32; REMEMBERED],
    count: usize,
    sum: u64,
}

impl Recent {
    fn add(&mut self, took: Duration) {
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        let place = self.count % REMEMBERED;
        self.sum -= u64::from(self.micros[place]);
        self.micros[place] = micros;
        self.sum += u64::from(micros);
        self.count += 1;
    }

    fn is_quick(&self) -> bool {
        let remembered = self.count.min(REMEMBERED) as u64;
        remembered >= ENOUGH as u64 && self.sum < remembered * QUICK.as_micros() as u64
    }
}

/// The last executions of each node here.
#[derive(Debug, Default)]
pub(crate) struct Quickness {
    nodes: Mutex<HashMap<(Uuid, i32, NodeIx), Recent>>,
}

fn key(context: &RunContext, node: NodeIx) -> Option<(Uuid, i32, NodeIx)> {
    Some((context.pipeline_id?, context.version?, node))
}

impl Quickness {
    /// Remembers one execution.
    pub(crate) fn add(&self, context: &RunContext, node: NodeIx, took: Duration) {
        let Some(key) = key(context, node) else { return };
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if nodes.len() >= NODES && !nodes.contains_key(&key) {
            nodes.clear();
        }
        nodes.entry(key).or_default().add(took);
    }

    /// Whether the node's last executions here took less than 5 ms on average.
    pub(crate) fn is_quick(&self, context: &RunContext, node: NodeIx) -> bool {
        key(context, node).is_some_and(|key| {
            let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
            nodes.get(&key).is_some_and(Recent::is_quick)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_twenty_count() {
        let mut recent = Recent::default();
        assert!(!recent.is_quick(), "nothing is known yet");
        (0..4).for_each(|_| recent.add(Duration::from_micros(10)));
        assert!(!recent.is_quick(), "four are not enough");
        recent.add(Duration::from_micros(10));
        assert!(recent.is_quick());
        recent.add(Duration::from_secs(1));
        assert!(!recent.is_quick(), "the mean is over 5 ms");
        (0..REMEMBERED).for_each(|_| recent.add(Duration::from_micros(10)));
        assert!(recent.is_quick(), "the slow one is forgotten");
    }
}
