//! How fast the engine is, beside the limits of its own servers: one JSON line a workload.
//!
//! It starts the binaries that lie beside it on the servers that `DATABASE_URL` and `AMQP_URL` name, each workload
//! with a database and a prefix of its own. Everything is durable, and client and servers share the machine.

mod access;
mod http;
mod latency;
mod limits;
mod load;
mod report;
mod schedules;
mod slow_server;
mod steady;
mod throughput;

use clap::{Parser, ValueEnum};
use serde_json::Value;

/// Measure the engine, one JSON line a workload.
#[derive(Debug, Clone, Parser)]
struct Arguments {
    /// What to measure, in this order; all but W8 and access when none is named.
    #[arg(value_enum, ignore_case = true)]
    workloads: Vec<Workload>,
    /// Multiplies all counts and times: 0.01 makes a smoke run, whose figures mean nothing.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Slots of each worker, but in W7.
    #[arg(long, default_value_t = 256)]
    concurrency: usize,
    /// Apis.
    #[arg(long, default_value_t = 1)]
    apis: usize,
    /// How often each workload is measured.
    #[arg(long, default_value_t = 1)]
    repeat: usize,
    /// W8: actions a second; when it is not given, half of what W1 reached before it in the same run, or 1,250.
    #[arg(long)]
    rate: Option<f64>,
    /// Log filter of the processes.
    #[arg(long, default_value = "warn")]
    log: String,
    /// Submits as a user who signed in, within limits that are never reached.
    #[arg(skip)]
    signs_in: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Workload {
    /// Single-row insert and update commits per second on this PostgreSQL, 16 clients.
    L1,
    /// Messages per second, published with confirms and consumed with acks at once, on one quorum queue.
    L2,
    /// Milliseconds for the hops of one action, one after the other: three commits, two messages, a read.
    L3,
    /// 5,000 no-op actions, one a request, by 16 connections.
    W1,
    /// The same by one connection that sends batches of 100.
    W1b,
    /// 2,000 runs of a chain of 10 no-op nodes, submitted as W1.
    W2,
    /// 500 runs of 1 → 20 → 1, on two workers.
    W3,
    /// One run of 1 → 10,000 → 1.
    W3l,
    /// 300 single actions one after the other, submit to the answer of the long-poll.
    W4,
    /// The same for a chain of three nodes.
    W5,
    /// W1 while a backlog of 100,000 actions drains.
    W6,
    /// 4,000 runs of a chain of 5 nodes that wait 100 ms each, on 1, 2 and 4 workers of 50 slots.
    W7,
    /// Ten minutes at half of W1's rate.
    W8,
    /// 10,000 schedules due in the same second.
    S1,
    /// 100 schedules at every second, for a minute.
    S2,
    /// 100,000 schedules stored, 10 due.
    S3,
    /// What the processes use when there is nothing to do.
    Idle,
    /// W1 with and without accounts and limits, five alternating pairs.
    Access,
}

impl Workload {
    const USUAL: [Self; 16] = [
        Self::L1,
        Self::L2,
        Self::L3,
        Self::W1,
        Self::W1b,
        Self::W2,
        Self::W3,
        Self::W3l,
        Self::W4,
        Self::W5,
        Self::W6,
        Self::W7,
        Self::S1,
        Self::S2,
        Self::S3,
        Self::Idle,
    ];
}

#[tokio::main]
async fn main() {
    let mut arguments = Arguments::parse();
    let workloads = match arguments.workloads.as_slice() {
        [] => Workload::USUAL.to_vec(),
        named => named.to_vec(),
    };
    for workload in workloads {
        for _ in 0..arguments.repeat {
            for line in measure(workload, &arguments).await {
                if workload == Workload::W1 && arguments.rate.is_none() {
                    arguments.rate = line["rate"].as_f64().map(|rate| rate / 2.0);
                }
                println!("{line}");
            }
        }
    }
}

async fn measure(workload: Workload, arguments: &Arguments) -> Vec<Value> {
    match workload {
        Workload::L1 => vec![limits::postgres(arguments).await],
        Workload::L2 => vec![limits::rabbitmq(arguments).await],
        Workload::L3 => vec![limits::one_by_one(arguments).await],
        Workload::W1 => vec![throughput::actions(arguments).await],
        Workload::W1b => vec![throughput::batches(arguments).await],
        Workload::W2 => vec![throughput::chains(arguments).await],
        Workload::W3 => vec![throughput::fans(arguments).await],
        Workload::W3l => vec![throughput::large_fan(arguments).await],
        Workload::W4 => vec![latency::actions(arguments).await],
        Workload::W5 => vec![latency::chains(arguments).await],
        Workload::W6 => vec![throughput::backlog(arguments).await],
        Workload::W7 => throughput::waiting(arguments).await,
        Workload::W8 => vec![steady::run(arguments).await],
        Workload::S1 => vec![schedules::burst(arguments).await],
        Workload::S2 => vec![schedules::lag(arguments).await],
        Workload::S3 => vec![schedules::tick(arguments).await],
        Workload::Idle => vec![steady::idle(arguments).await],
        Workload::Access => vec![access::pairs(arguments).await],
    }
}

impl Arguments {
    /// A count of a workload, scaled, and never nothing.
    fn scaled(&self, count: usize) -> usize {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "counts are small and positive"
        )]
        let scaled = (count as f64 * self.scale).round() as usize;
        scaled.max(1)
    }
}
