//! Whether a fire starts while the run of one before has not ended.

use super::Overlap;

/// What is under way when a fire is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UnderWay {
    /// Runs of fires before that have not ended.
    pub running: bool,
    /// A fire that waits.
    pub waiting: bool,
}

/// What becomes of a fire that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It starts.
    Start,
    /// It starts, and what runs is cancelled.
    Replace,
    /// It waits.
    Wait,
    /// It is skipped: why.
    Skip(&'static str),
}

/// Decides by the schedule's rule and what is under way.
pub fn admit(overlap: Overlap, under_way: UnderWay) -> Admission {
    match (overlap, under_way) {
        (Overlap::Allow, _) => Admission::Start,
        (Overlap::Queue, UnderWay { waiting: true, .. }) => {
            Admission::Skip("overlap: one fire waits already for the end of the run before")
        }
        (_, UnderWay { running: false, waiting: false }) => Admission::Start,
        (Overlap::Skip, _) => Admission::Skip("overlap: the run before has not ended"),
        (Overlap::Queue, _) => Admission::Wait,
        (Overlap::CancelPrevious, _) => Admission::Replace,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole table: a change to it has to be meant.
    #[test]
    fn the_table_of_all_rules_and_circumstances() {
        use Admission::{Replace, Start, Wait};
        let at = |running, waiting| UnderWay { running, waiting };
        for overlap in [Overlap::Skip, Overlap::Allow, Overlap::Queue, Overlap::CancelPrevious] {
            assert_eq!(admit(overlap, at(false, false)), Start, "{overlap:?}");
        }
        assert!(matches!(admit(Overlap::Skip, at(true, false)), Admission::Skip(_)));
        assert_eq!(admit(Overlap::Allow, at(true, true)), Start);
        assert_eq!(admit(Overlap::Queue, at(true, false)), Wait);
        assert!(matches!(admit(Overlap::Queue, at(true, true)), Admission::Skip(_)));
        assert!(matches!(admit(Overlap::Queue, at(false, true)), Admission::Skip(_)));
        assert_eq!(admit(Overlap::CancelPrevious, at(true, false)), Replace);
    }
}
