//! The fleet harness: real servers, real processes, and what breaks them.
//!
//! A test starts a [`fleet::TestFleet`] with a database and a broker prefix of its own, drives it through a
//! [`client::Client`], and ends with [`fleet::TestFleet::finish`], which fails when work is left over.
#![allow(
    clippy::disallowed_methods,
    reason = "tests read their environment, and spawn tasks that end with them"
)]

mod aside;
pub mod broker;
pub mod client;
pub mod database;
pub mod events;
pub mod fleet;
pub mod http_target;
pub mod ledger;
pub mod leftovers;
pub mod ports;
pub mod process;
pub mod proxy;
pub mod remote_tool;
pub mod servers;
pub mod smtp;
pub mod wait;
