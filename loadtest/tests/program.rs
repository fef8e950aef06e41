//! The program itself: worker processes, agents, reports, exit codes.

#![allow(clippy::unwrap_used, reason = "a test may panic; the lint knows only functions marked as tests")]

mod model;

use std::path::Path;
use std::process::Output;

use loadtest::report::Report;
use loadtest::series::Series;
use model::{Model, Plant};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

const USERS: u64 = 48;

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard-loadtest"));
    command.kill_on_drop(true).env_remove("LOADTEST_TOKEN");
    command
}

struct Bench {
    directory: tempfile::TempDir,
    url: String,
    _model: std::sync::Arc<Model>,
}

impl Bench {
    async fn start(plant: Plant) -> Self {
        let (model, address) = Model::start(plant, false).await;
        let directory = tempfile::tempdir().unwrap();
        let lines: String = (1..=USERS).map(|user| format!("{user} {user}\n")).collect();
        std::fs::write(directory.path().join("tokens"), lines).unwrap();
        Self { directory, url: format!("ws://{address}/ws"), _model: model }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    async fn run(&self, arguments: &[&str], files: &[(&str, &str)]) -> Output {
        let mut command = program();
        command.args(arguments).args(["--url", &self.url, "--smoke", "--quiet"]).arg("--tokens").arg(self.path("tokens"));
        for (flag, name) in files {
            command.arg(flag).arg(self.path(name));
        }
        command.output().await.unwrap()
    }

    fn report(&self, name: &str) -> Report {
        read(&self.path(name))
    }
}

fn read(path: &Path) -> Report {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn said(output: &Output) -> String {
    format!("{} {}{}", output.status, String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn worker_processes_are_one_run() {
    let bench = Bench::start(Plant::Nothing).await;
    let files = [("--json", "r.json"), ("--html", "r.html")];
    let output = bench.run(&["run", "churn", "--sockets", "48", "--workers", "3"], &files).await;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let report = bench.report("r.json");
    assert_eq!((report.workers, report.counts.due), (3, 230), "{report}");
    // What workers counted is there, none of it twice.
    for summary in report.series.values() {
        let mut series = Series::default();
        series.merge(&summary.buckets);
        assert_eq!(series.count(), summary.count);
    }
    let html = std::fs::read_to_string(bench.path("r.html")).unwrap();
    assert!(html.contains("<svg") && html.contains("Latency by percentile") && !html.contains("src=") && !html.contains("NaN"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_wrong_verdict_is_exit_code_1_and_names_the_offenders() {
    let bench = Bench::start(Plant::Loss).await;
    let output = bench.run(&["run", "direct", "--workers", "2", "--grace", "500ms"], &[]).await;
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("verdict: WRONG") && said(&output).contains("never shown to"), "{}", said(&output));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_cannot_be_run_is_exit_code_2_with_the_remedy() {
    let bench = Bench::start(Plant::Nothing).await;
    let mistaken = bench.path("mine.toml");
    std::fs::write(&mistaken, "name = \"x\"\nabout = \"y\"\nsockets = 4\nduration = \"1s\"\n[load]\nrat = 1\n").unwrap();
    let output = bench.run(&["run", mistaken.to_str().unwrap()], &[]).await;
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("mine.toml, line 6:") && said(&output).contains("did you mean `rate`?"), "{}", said(&output));
    for (arguments, remedy) in [
        (vec!["run", "dircet"], "did you mean `direct`?"),
        (vec!["run", "restart"], "--fault-command"),
        (vec!["run", "direct", "--rate", "5000"], "--sockets 100 or more"),
        (vec!["run", "direct", "--sockets", "60"], "holds 48"),
        (vec!["run", "direct", "--expect", "delivered.p98 < 1s"], "p99"),
    ] {
        let output = bench.run(&arguments, &[]).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", said(&output));
        assert!(said(&output).contains(remedy), "{arguments:?}: {}", said(&output));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn agents_do_the_work_of_a_conductor_who_knows_the_token() {
    let bench = Bench::start(Plant::Nothing).await;
    std::fs::write(bench.path("right"), "a token of many letters\n").unwrap();
    std::fs::write(bench.path("wrong"), "another one of many letters").unwrap();
    let mut command = program();
    command.args(["agent", "--listen", "127.0.0.1:0", "--token-file"]).arg(bench.path("right"));
    let mut agent = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let line = BufReader::new(agent.stdout.take().unwrap()).lines().next_line().await.unwrap().unwrap();
    let address = line.rsplit_once(' ').unwrap().1;
    let agents = format!("{address},{address}");
    let arguments = ["run", "direct", "--agents", &agents];
    let refused = bench.run(&arguments, &[("--agent-token-file", "wrong")]).await;
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    let output = bench.run(&arguments, &[("--agent-token-file", "right"), ("--json", "r.json")]).await;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let report = bench.report("r.json");
    assert_eq!((report.workers, report.counts.due, report.counts.accepted), (2, 230, 230), "{report}");
    agent.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn two_reports_are_compared() {
    let bench = Bench::start(Plant::Nothing).await;
    let output = bench.run(&["run", "direct"], &[("--json", "one.json")]).await;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let mut slower = bench.report("one.json");
    for summary in slower.series.values_mut() {
        summary.p99_ms *= 2.0;
    }
    std::fs::write(bench.path("two.json"), serde_json::to_string(&slower).unwrap()).unwrap();
    let compare = async |first: &str, second: &str| {
        let mut command = program();
        command.arg("compare").arg(bench.path(first)).arg(bench.path(second)).args(["--fail-above", "50"]).output().await.unwrap()
    };
    let worse = compare("one.json", "two.json").await;
    assert_eq!(worse.status.code(), Some(1), "{}", said(&worse));
    assert!(said(&worse).contains("worse by more than 50 %: delivered.p99 (+100.0 %)"), "{}", said(&worse));
    assert_eq!(compare("two.json", "one.json").await.status.code(), Some(0));
}
