//! `aircheck bench` from outside: a small load is whole, and a server that dies is told.

use crate::support::House;
use serde_json::Value;
use std::process::{Command, Output};

fn bench(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_aircheck"))
        .args(["bench", "--json"])
        .args(args)
        .output()
        .expect("the binary runs")
}

fn report(output: &Output) -> Value {
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
}

#[test]
fn twenty_broadcasters_are_acknowledged_archived_and_read_back_by_a_server_of_the_benchs_own() {
    let output = bench(&["--broadcasters", "20", "--duration", "3s"]);
    let report = report(&output);
    assert!(output.status.success(), "{report:#}");
    assert_eq!(report["live"], 20);
    assert_eq!(report["archived"], 20);
    assert_eq!(report["verified"], 20);
    assert_eq!(report["server_errors"], 0);
    let sent = report["sent_bytes"].as_u64().expect("a number");
    // 16 kB a second, of each.
    assert!(sent.abs_diff(20 * 3 * 16_000) < 20_000, "{sent}");
    assert_eq!(report["durable_bytes"], sent);
    for figure in [
        &report["ack"]["p50_ms"],
        &report["archive"]["p99_ms"],
        &report["server"]["cores"],
        &report["server"]["resident"],
    ] {
        assert!(figure.as_f64().is_some_and(|ms| ms > 0.0), "{report:#}");
    }
}

#[test]
fn an_ingest_is_measured_over_grpc_and_a_table_says_what_was_found() {
    let house = House::start();
    let pid = house.pid().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_aircheck"))
        .args(["bench", "--broadcasters", "3", "--duration", "1s"])
        .args(["--to", &house.ingest, "--pid", &pid])
        .output()
        .expect("the binary runs");
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{table}");
    assert!(table.contains("3 live, 0 refused, 0 lost"), "{table}");
    assert!(table.contains("3 of 3 whole"), "{table}");
    assert!(table.contains("broadcasters a core"), "{table}");
}

#[test]
fn broadcasters_that_nobody_takes_are_refused_and_not_forgotten() {
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let to = format!("ws://{}", nowhere.local_addr().expect("bound"));
    drop(nowhere);
    let output = bench(&["--broadcasters", "2", "--duration", "1s", "--to", &to]);
    assert_eq!(output.status.code(), Some(3));
    let report = report(&output);
    assert_eq!(report["refused"], 2);
    assert_eq!(report["archived"], 0);
    assert!(report["server"].is_null(), "nobody was measured");
}
