//! The bench still runs, and loses nothing. Its figures mean nothing here.

use std::collections::BTreeSet;
use std::process::Stdio;

use serde_json::Value;
use tokio::process::Command;

#[tokio::test]
async fn every_workload_runs_small() {
    let workloads = [
        "l1", "l2", "l3", "w1", "w1b", "w2", "w3", "w3l", "w4", "w5", "w6", "w7", "w8", "s1", "s2",
        "s3", "idle", "access",
    ];
    let mut bench = Command::new(env!("CARGO_BIN_EXE_bench"));
    bench.args(["--scale", "0.01"]).args(workloads).stderr(Stdio::inherit());
    let output = bench.output().await.expect("the bench starts");
    let said = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{said}");

    let lines: Vec<Value> = said
        .lines()
        .map(|line| serde_json::from_str(line).expect("one JSON line a workload"))
        .collect();
    let named: BTreeSet<_> =
        lines.iter().filter_map(|line| Some(line["workload"].as_str()?.to_lowercase())).collect();
    assert_eq!(named, workloads.map(str::to_owned).into(), "{said}");
    for line in &lines {
        assert!(line["rate"].is_f64() || line["p50"].is_f64(), "{line}");
    }
}
