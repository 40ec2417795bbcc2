//! The vocabulary of GatheRing: its names, its rules, its storage and its messages.
//!
//! The pure nouns ([`pipeline`], [`graph`], [`expression`], [`advance`], [`run`], [`node_run`], [`takeover`],
//! [`retry`], [`schedule`], [`wait`])
//! decide; [`store`] and [`broker`] act. The pure ones import neither of the two, nor tokio.

pub mod access;
pub mod advance;
pub mod batch;
pub mod breakpoint;
pub mod broker;
pub mod clock;
pub mod config;
pub mod context;
pub mod duration;
pub mod expression;
pub mod failure;
pub mod graph;
pub mod job;
mod memory;
pub mod node_log;
pub mod node_run;
pub mod ops;
pub mod outbox;
pub mod own;
pub mod pipeline;
pub mod problem;
pub mod remote;
pub mod retry;
pub mod run;
pub mod schedule;
pub mod secret;
pub mod shutdown;
pub mod size;
pub mod store;
pub mod takeover;
pub mod telemetry;
pub mod tool;
pub mod wait;
