//! The comparison as it is run, with the relays only: it finds them, speaks to them, counts every message and leaves nothing behind.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::net::TcpListener;
use std::process::Command;

#[test]
fn relays_are_compared_and_nothing_stays() {
    // two ports in a row that are free now; those of the system's choice are rarely taken again at once
    let pair = || {
        let first = TcpListener::bind("127.0.0.1:0").ok()?;
        let port = first.local_addr().ok()?.port();
        TcpListener::bind(("127.0.0.1", port.checked_add(1)?)).ok().map(|_| port)
    };
    let port = (0..50).find_map(|_| pair()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut compare = Command::new(env!("CARGO_BIN_EXE_benches"));
    compare.args([
        "compare",
        "--peers",
        "fastwebsockets,tungstenite,wukongim",
        "--json",
        "--rounds",
        "1",
        "--sockets",
        "10",
        "--idle",
        "20",
    ]);
    compare.args(["--rate", "200", "--duration", "1s", "--warmup", "0.2s", "--port", &port.to_string(), "--dir"]).arg(dir.path());
    let done = compare.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let report: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    let peers = report["peers"].as_array().unwrap();
    assert_eq!(peers.len(), 3);
    for peer in &peers[..2] {
        assert_eq!((&peer["measured"], &peer["durability"]), (&true.into(), &"none".into()));
        let of = |figure: &str| peer["figures"][figure]["rounds"][0].as_f64().unwrap();
        assert!(of("p50_ms") > 0.0 && of("p50_ms") <= of("p99_ms") && of("setup_per_s") > 0.0, "{peer}");
    }
    assert_eq!((&peers[2]["measured"], &peers[2]["durability"]), (&false.into(), &"fsync".into()));
    assert!(peers[2]["figures"]["cpu_s"]["ratio"].is_null(), "nothing is divided by figures of another day");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "folders are removed");
}

#[test]
fn a_binary_that_is_not_there_is_said_before_anything_runs() {
    for peer in ["centrifugo", "wukongim"] {
        let mut compare = Command::new(env!("CARGO_BIN_EXE_benches"));
        compare.args(["compare", "--peers", peer, &format!("--{peer}"), "no/such/binary", "--sockets", "2", "--idle", "2"]);
        let done = compare.output().unwrap();
        let why = String::from_utf8_lossy(&done.stderr);
        assert!(!done.status.success() && why.contains("no/such/binary is missing"), "{why}");
    }
}
