//! Schedules, their fires, and events.
//!
//! Whoever changes a schedule, or adds a fire to it, locks its row in `schedule_clocks` first, by id where there are
//! several, and reads the rest after that. So a fire is decided by one at a time, and by what is said last.

pub mod backfill;
pub mod catalogue;
pub mod clocks;
pub mod define;
pub mod due;
pub mod events;
pub mod follow;
mod hear;
pub mod manual;
pub mod read;
pub mod write;

pub use self::hear::hear;

/// How many events may lead to one another: a run that the fifth one started starts nothing more.
pub const DEEPEST: i32 = 5;
