//! What is known of each lane's messages: which have come through, as far as probes have proved it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use common::clock;
use common::store::probes::Proof;

/// A probe that has not arrived by then is followed by another.
const FOLLOWED_AFTER: Duration = Duration::from_secs(15);

/// The lanes that the audit has met.
#[derive(Debug, Default)]
pub struct Lanes(HashMap<String, Lane>);

#[derive(Debug, Default)]
struct Lane {
    /// What was queued until then has come through, or is lost.
    proved_until: Option<clock::Instant>,
    probed_at: Option<Instant>,
    /// Something has been queued there for long, and no proof covers it.
    is_in_doubt: bool,
}

impl Lanes {
    /// Takes in what the probes that arrived have proved. A proof is never taken back.
    pub fn proved(&mut self, proofs: Vec<Proof>) {
        for proof in proofs {
            let lane = self.0.entry(proof.lane).or_default();
            lane.proved_until = lane.proved_until.max(Some(proof.until));
        }
    }

    /// Whether what was queued in `lane` at `queued_at`, and still is, is proved to have lost its message.
    pub fn has_lost(&self, lane: &str, queued_at: clock::Instant) -> bool {
        self.0.get(lane).and_then(|lane| lane.proved_until).is_some_and(|until| queued_at <= until)
    }

    /// Notes that something has been queued in `lane` for long, and may have lost its message.
    pub fn doubt(&mut self, lane: &str) {
        match self.0.get_mut(lane) {
            Some(lane) => lane.is_in_doubt = true,
            None => {
                let lane = self.0.entry(lane.to_owned()).or_default();
                lane.is_in_doubt = true;
            }
        }
    }

    /// Whether any lane waits for a proof.
    pub fn any_in_doubt(&self) -> bool {
        self.0.values().any(|lane| lane.is_in_doubt)
    }

    /// The lanes to send a probe into now, each once. A lane that no living worker serves gets none: it could not
    /// arrive.
    pub fn to_probe(&mut self, is_served: impl Fn(&str) -> bool, now: Instant) -> Vec<String> {
        let mut names = Vec::new();
        for (name, lane) in &mut self.0 {
            let is_due = lane.probed_at.is_none_or(|at| now.duration_since(at) >= FOLLOWED_AFTER);
            if lane.is_in_doubt && is_due && is_served(name) {
                lane.is_in_doubt = false;
                lane.probed_at = Some(now);
                names.push(name.clone());
            }
        }
        names
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn instant(seconds: i64) -> clock::Instant {
        clock::Instant::from_timestamp(seconds, 0).unwrap()
    }

    fn proof(until: i64) -> Vec<Proof> {
        vec![Proof { lane: "gpu".to_owned(), until: instant(until) }]
    }

    #[test]
    fn a_lane_in_doubt_is_probed_every_fifteen_seconds() {
        let (mut lanes, start) = (Lanes::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(lanes.to_probe(|_| true, at(0)).is_empty());
        lanes.doubt("gpu");
        assert!(lanes.any_in_doubt());
        assert_eq!(lanes.to_probe(|_| true, at(0)), ["gpu"]);
        assert!(!lanes.any_in_doubt(), "until the next look shows that it still is");
        lanes.doubt("gpu");
        assert!(lanes.to_probe(|_| true, at(14)).is_empty());
        assert_eq!(lanes.to_probe(|_| true, at(15)), ["gpu"]);
    }

    #[test]
    fn a_lane_without_workers_is_not_probed() {
        let mut lanes = Lanes::default();
        lanes.doubt("gpu");
        assert!(lanes.to_probe(|lane| lane == "default", Instant::now()).is_empty());
        assert_eq!(lanes.to_probe(|lane| lane == "gpu", Instant::now()), ["gpu"]);
    }

    #[test]
    fn a_proof_covers_what_was_queued_until_then_in_its_lane() {
        let mut lanes = Lanes::default();
        assert!(!lanes.has_lost("gpu", instant(0)));
        lanes.proved(proof(100));
        assert!(lanes.has_lost("gpu", instant(100)));
        assert!(!lanes.has_lost("gpu", instant(101)));
        assert!(!lanes.has_lost("default", instant(100)));
        lanes.proved(proof(50));
        assert!(
            lanes.has_lost("gpu", instant(100)),
            "a probe that was overtaken proves nothing less"
        );
    }
}
