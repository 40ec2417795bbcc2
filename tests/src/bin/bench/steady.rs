//! W8 and idle: whether the engine stays as fast and as small as it was, and what it uses when there is nothing to do.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::Row;
use tokio::time::MissedTickBehavior;

use crate::Arguments;
use crate::http::Request;
use crate::load::{CONNECTIONS, Load, no_op};
use crate::report::{Machine, Usage, quantile, rounded};

/// How often the slopes get a point.
const WINDOW: Duration = Duration::from_secs(10);
/// Actions a second: half of what W1 has to reach.
const HALF: f64 = 1_250.0;

pub(crate) async fn run(arguments: &Arguments) -> Value {
    let rate = arguments.rate.unwrap_or(HALF);
    let lasts = Duration::from_secs(600).mul_f64(arguments.scale).max(Duration::from_secs(2));
    let load = Load::start(arguments, 1).await;
    let usage = Usage::start(&load.fleet);
    let (submitted, Watched { memory, machine }) =
        futures::future::join(submit(&load, arguments, rate, lasts), watch(&load, lasts)).await;
    let ended = load.ended(Duration::from_secs(120)).await;
    let used = usage.end(&load.fleet);
    load.check(&ended, submitted).await;

    let windows = windows(&load, lasts).await;
    // Until the first fifth is over, pools fill and caches warm.
    let settled = |values: Vec<f64>| values[values.len() / 5..].to_vec();
    let figures = |figure: fn(&Window) -> f64| windows.iter().map(figure).collect::<Vec<f64>>();
    let [p50, p99] = [figures(|window| window.p50), figures(|window| window.p99)];
    let rises = |of: fn(Rise) -> Value| {
        let rise = |values: &[f64]| of(Rise::of(&settled(values.to_vec())));
        json!({
            "throughput": rise(&figures(|window| window.rate)),
            "p50": rise(&p50),
            "p99": rise(&p99),
            "memory": memory.iter().map(|(name, kib)| (name.clone(), rise(kib)))
                .collect::<serde_json::Map<_, _>>(),
        })
    };
    let shown = |values: &[f64]| values.iter().map(|ms| rounded(*ms, 1)).collect::<Vec<_>>();
    json!({
        "workload": "W8",
        "unit": "relative slope over the time",
        "rate": rounded(rate, 1),
        "seconds": lasts.as_secs(),
        "runs": submitted,
        "slopes": rises(|rise| json!(rounded(rise.slope, 4))),
        "between": rises(|rise| json!(rise.between.map(|bound| rounded(bound, 4)))),
        "p50_ms": shown(&p50),
        "p99_ms": shown(&p99),
        "machine": machine,
        "memory_mib": memory.iter()
            .map(|(name, kib)| (name.clone(), json!(shown(&kib.iter().map(|kib| kib / 1024.0).collect::<Vec<_>>()))))
            .collect::<serde_json::Map<_, _>>(),
        "vacuum": vacuum(&load).await,
        "workers": 1,
        "concurrency": arguments.concurrency,
        "apis": arguments.apis,
        "usage": used,
    })
}

/// Submits at a steady rate, whatever the answers take; returns how many.
async fn submit(load: &Load, arguments: &Arguments, rate: f64, lasts: Duration) -> usize {
    let request = Request::post("/v1/actions", &load.token, &no_op().to_string());
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let period = Duration::from_secs_f64(CONNECTIONS as f64 / rate);
    let connections = load.connections(arguments, CONNECTIONS).await;
    let began = Instant::now();
    let sent = futures::future::join_all(connections.into_iter().map(|mut connection| {
        let request = &request;
        async move {
            let mut ticks = tokio::time::interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let mut sent = 0;
            while began.elapsed() < lasts {
                ticks.tick().await;
                connection.expect(request, 202).await;
                sent += 1;
            }
            sent
        }
    }))
    .await;
    sent.into_iter().sum()
}

/// What is looked at while it runs.
struct Watched {
    /// Of each process, at the begin and after each part.
    memory: Vec<(String, Vec<f64>)>,
    /// What the machine was like, part by part.
    machine: Vec<Value>,
}

async fn watch(load: &Load, lasts: Duration) -> Watched {
    let memory =
        load.fleet.processes().map(|process| (process.name().to_owned(), Vec::new())).collect();
    let mut watched = Watched { memory, machine: Vec::new() };
    let window = WINDOW.min(lasts / 10);
    let mut ticks = tokio::time::interval(window);
    let began = Instant::now();
    let mut part: Option<Machine> = None;
    while began.elapsed() < lasts {
        ticks.tick().await;
        watched.machine.extend(part.replace(Machine::start()).map(Machine::end));
        for ((_, values), process) in watched.memory.iter_mut().zip(load.fleet.processes()) {
            #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
            values.push(process.memory_kib().0 as f64);
        }
    }
    watched
}

/// A part of the time.
struct Window {
    /// Completions a second.
    rate: f64,
    /// Of the milliseconds from acceptance to end.
    p50: f64,
    p99: f64,
}

async fn windows(load: &Load, lasts: Duration) -> Vec<Window> {
    let window = WINDOW.min(lasts / 10).as_secs_f64();
    let rows = sqlx::query(
        "select count(*)::float8 / $1,
                percentile_cont(array[0.5, 0.99]) within group (order by extract(epoch from finished_at - created_at))
         from runs, (select min(created_at) as began from runs) as first
         group by floor(extract(epoch from finished_at - began) / $1) order by
                  floor(extract(epoch from finished_at - began) / $1)",
    )
    .bind(window)
    .fetch_all(load.fleet.database().pool())
    .await
    .expect("runs can be read");
    let of = |row: &sqlx::postgres::PgRow| {
        let seconds: Vec<f64> = row.get(1);
        Window { rate: row.get(0), p50: seconds[0] * 1e3, p99: seconds[1] * 1e3 }
    };
    let mut windows: Vec<_> = rows.iter().map(of).collect();
    // The last one is not whole.
    windows.pop();
    windows
}

/// How far values at equal distances rise from the first to the last, in parts of their median: by the median of the
/// slopes between all pairs (Theil 1950, Sen 1968). A stall in one part hardly moves it, as it would a line of least
/// squares.
#[derive(Default)]
struct Rise {
    slope: f64,
    /// Where the slope lies with 95 % confidence, as long as the parts are independent of each other (Sen 1968, by
    /// Kendall's variance). A machine that is slow for minutes makes it wider than this tells.
    between: [f64; 2],
}

impl Rise {
    fn of(values: &[f64]) -> Self {
        if values.len() < 3 {
            return Self::default();
        }
        let mut slopes: Vec<f64> = (1_u32..)
            .zip(1..values.len())
            .flat_map(|(far, from)| {
                values.iter().zip(&values[from..]).map(move |(a, b)| (b - a) / f64::from(far))
            })
            .collect();
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let [parts, pairs] = [values.len(), slopes.len()].map(|count| count as f64);
        let spread =
            1.96 * (parts * (parts - 1.0) * (2.0 * parts + 5.0) / 18.0).sqrt() / pairs / 2.0;
        slopes.sort_by(f64::total_cmp);
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        let over_all = (parts - 1.0) / quantile(&values, 0.5);
        let at = |part: f64| quantile(&slopes, part) * over_all;
        Self { slope: at(0.5), between: [at(0.5 - spread), at(0.5 + spread)] }
    }
}

/// Dead rows of the hot tables, and how often they were vacuumed.
async fn vacuum(load: &Load) -> Value {
    let rows = sqlx::query(
        "select relname::text, n_live_tup, n_dead_tup, autovacuum_count, pg_total_relation_size(relid) / 1048576
         from pg_stat_user_tables where relname in ('runs', 'node_runs', 'outbox', 'timers', 'attempts')",
    )
    .fetch_all(load.fleet.database().pool())
    .await
    .expect("statistics can be read");
    let tables = rows.iter().map(|row| {
        let (live, dead, vacuums, mib): (i64, i64, i64, i64) =
            (row.get(1), row.get(2), row.get(3), row.get(4));
        (
            row.get::<String, _>(0),
            json!({"live": live, "dead": dead, "vacuums": vacuums, "mib": mib}),
        )
    });
    Value::Object(tables.collect())
}

/// What the processes use when nothing is to be done.
pub(crate) async fn idle(arguments: &Arguments) -> Value {
    let load = Load::start(arguments, 1).await;
    let lasts = Duration::from_secs(30).mul_f64(arguments.scale).max(Duration::from_secs(1));
    let usage = Usage::start(&load.fleet);
    // Time itself is what is measured here.
    tokio::time::sleep(lasts).await;
    let cpu = usage.cpu(&load.fleet) / lasts.as_secs_f64();
    json!({
        "workload": "idle",
        "unit": "parts of a core",
        "rate": rounded(cpu, 4),
        "seconds": lasts.as_secs_f64(),
        "usage": usage.end(&load.fleet),
    })
}
