//! Turns finished deliveries into as few acks as the protocol allows.

use std::collections::BTreeSet;

use super::delivery::Settled;

/// The delivery tags of one channel that are neither acked nor requeued. Never more than were prefetched.
#[derive(Debug, Default)]
pub(super) struct Tracker(BTreeSet<u64>);

/// What to tell the broker, requeues first.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    /// Tags to put back.
    pub(super) requeue: Vec<u64>,
    /// Ack this tag and all below it. It is always one that is still open: an older one would close the channel.
    pub(super) ack_up_to: Option<u64>,
    /// Finished tags above one that is not.
    pub(super) ack: Vec<u64>,
    /// How many deliveries are acked by this.
    pub(super) acked: u64,
}

impl Tracker {
    pub(super) fn deliver(&mut self, tag: u64) {
        self.0.insert(tag);
    }

    pub(super) fn open(&self) -> usize {
        self.0.len()
    }

    /// How many of the tags up to this one are open.
    pub(super) fn open_up_to(&self, tag: u64) -> usize {
        self.0.range(..=tag).count()
    }

    pub(super) fn settle(&mut self, settled: &[Settled]) -> Words {
        let mut words = Words::default();
        let mut acked = Vec::with_capacity(settled.len());
        for settled in settled {
            match *settled {
                Settled::Acked(tag) if self.0.remove(&tag) => acked.push(tag),
                Settled::Requeued(tag) if self.0.remove(&tag) => words.requeue.push(tag),
                _ => {}
            }
        }
        words.acked = acked.len() as u64;
        acked.sort_unstable();
        let below = match self.0.first() {
            Some(lowest_open) => acked.partition_point(|tag| tag < lowest_open),
            None => acked.len(),
        };
        words.ack = acked.split_off(below);
        words.ack_up_to = acked.pop();
        words
    }
}

#[cfg(test)]
mod tests {
    use super::Settled::{Acked, Requeued};
    use super::*;
    use proptest::prelude::*;

    fn tracker(tags: u64) -> Tracker {
        Tracker((1..=tags).collect())
    }

    #[test]
    fn what_is_contiguous_is_acked_at_once() {
        let words = tracker(4).settle(&[Acked(2), Acked(1), Acked(3)]);
        assert_eq!(words, Words { ack_up_to: Some(3), acked: 3, ..Words::default() });
    }

    #[test]
    fn what_lies_above_a_gap_is_acked_one_by_one() {
        let mut tracker = tracker(5);
        let words = tracker.settle(&[Acked(1), Acked(3), Acked(5)]);
        assert_eq!(
            words,
            Words { ack_up_to: Some(1), ack: vec![3, 5], acked: 3, ..Words::default() }
        );
        // 4 is open: the gap at 2 closes, and 3 must not be named again.
        let words = tracker.settle(&[Acked(2)]);
        assert_eq!(words, Words { ack_up_to: Some(2), acked: 1, ..Words::default() });
        let words = tracker.settle(&[Acked(4)]);
        assert_eq!(words, Words { ack_up_to: Some(4), acked: 1, ..Words::default() });
        assert_eq!(tracker.open(), 0);
    }

    #[test]
    fn a_requeue_does_not_hold_up_acks() {
        let words = tracker(3).settle(&[Requeued(1), Acked(2)]);
        assert_eq!(
            words,
            Words { requeue: vec![1], ack_up_to: Some(2), acked: 1, ..Words::default() }
        );
    }

    #[test]
    fn nothing_is_settled_twice() {
        let mut tracker = tracker(2);
        tracker.settle(&[Acked(1)]);
        assert_eq!(tracker.settle(&[Acked(1), Requeued(1)]), Words::default());
    }

    /// RabbitMQ's view of a channel.
    fn obey(open: &mut BTreeSet<u64>, words: &Words) {
        for tag in &words.requeue {
            assert!(open.remove(tag), "requeue of {tag}, which is not open");
        }
        if let Some(top) = words.ack_up_to {
            assert!(open.contains(&top), "ack up to {top}, which is not open");
            open.retain(|tag| *tag > top);
        }
        for tag in &words.ack {
            assert!(open.remove(tag), "ack of {tag}, which is not open");
        }
    }

    proptest! {
        #[test]
        fn the_broker_agrees_after_every_word(
            order in Just((1..=60u64).collect::<Vec<_>>()).prop_shuffle(),
            acks in proptest::collection::vec(any::<bool>(), 60),
            batch in 1..20usize,
        ) {
            let (mut tracker, mut broker) = (tracker(60), (1..=60).collect::<BTreeSet<u64>>());
            for chunk in order.chunks(batch) {
                let settled: Vec<_> = chunk
                    .iter()
                    .map(|tag| if acks[*tag as usize - 1] { Acked(*tag) } else { Requeued(*tag) })
                    .collect();
                obey(&mut broker, &tracker.settle(&settled));
                prop_assert_eq!(&tracker.0, &broker);
            }
            prop_assert_eq!(tracker.open(), 0);
        }
    }
}
