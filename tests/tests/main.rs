//! The system as its users meet it: real binaries, a real PostgreSQL, a real RabbitMQ.
#![allow(
    clippy::disallowed_methods,
    reason = "tests read their environment, and spawn tasks that end with them"
)]

mod access;
mod arrivals;
mod bench;
mod dead_letters;
mod definitions;
mod examples;
mod faults;
mod graph_property;
mod harness;
mod idempotency;
mod interpreter;
mod nodes;
mod operations;
mod pipelines;
mod problems;
mod remote_tools;
mod rules;
mod runs;
mod schedules;
mod simulation;
mod smoke;
mod soak;
mod stops;
mod stream;
mod tools;
mod waits;
mod ways;
