//! The load scenarios against a model that keeps the contract, and against one that loses.

#![allow(clippy::unwrap_used, reason = "a test may panic; the lint knows only functions marked as tests")]

mod model;

use std::path::Path;

use clap::Parser;
use loadtest::scenario::{direct, idle};
use model::{Model, Plant};

const SOCKETS: u64 = 20;

#[derive(Parser)]
struct Direct {
    #[command(flatten)]
    options: direct::Options,
}

#[derive(Parser)]
struct Idle {
    #[command(flatten)]
    options: idle::Options,
}

fn write_tokens(directory: &Path) -> String {
    let path = directory.join("tokens");
    let lines: String = (1..=SOCKETS).map(|user| format!("{user} {user}\n")).collect();
    std::fs::write(&path, lines).unwrap();
    path.to_str().unwrap().to_owned()
}

fn arguments(url: &str, tokens: &str, rest: &[&str]) -> Vec<String> {
    let sockets = SOCKETS.to_string();
    let start = ["loadtest", "--url", url, "--tokens", tokens, "--sockets", &sockets];
    start.iter().chain(rest).map(|&argument| argument.to_owned()).collect()
}

async fn run_direct(plant: Plant) -> direct::Outcome {
    let (_model, address) = Model::start(plant, plant == Plant::Nothing).await;
    let directory = tempfile::tempdir().unwrap();
    let (url, tokens) = (format!("ws://{address}/ws"), write_tokens(directory.path()));
    let rest = ["--rate", "400", "--duration", "1s", "--warmup", "250ms", "--body", "100", "--grace", "1s"];
    let options = Direct::parse_from(arguments(&url, &tokens, &rest)).options;
    direct::measure(&options).await.unwrap()
}

#[tokio::test]
async fn a_clean_load_is_measured() {
    let outcome = run_direct(Plant::Nothing).await;
    assert!(outcome.tally.is_clean(), "{outcome}");
    assert_eq!((outcome.tally.sends, outcome.accepted.count(), outcome.delivered.count()), (500, 400, 400), "{outcome}");
    assert!(outcome.tally.put_back > 0, "the model refuses now and then: {outcome}");
}

#[tokio::test]
async fn a_loss_under_load_is_counted() {
    let outcome = run_direct(Plant::Loss).await;
    assert!(!outcome.tally.is_clean() && outcome.tally.lost > 0, "{outcome}");
    assert_eq!(outcome.tally.duplicates + outcome.tally.phantoms + outcome.tally.holes, 0, "{outcome}");
}

#[tokio::test]
async fn a_rate_above_the_limit_of_a_user_is_explained() {
    let (_model, address) = Model::start(Plant::Nothing, false).await;
    let directory = tempfile::tempdir().unwrap();
    let (url, tokens) = (format!("ws://{address}/ws"), write_tokens(directory.path()));
    let options = Direct::parse_from(arguments(&url, &tokens, &["--rate", "2000"])).options;
    let error = direct::measure(&options).await.unwrap_err().to_string();
    assert!(error.contains("use --sockets 40 or more"), "{error}");
}

#[tokio::test]
async fn idle_sockets_come_and_stay() {
    let (_model, address) = Model::start(Plant::Nothing, false).await;
    let directory = tempfile::tempdir().unwrap();
    let (url, tokens) = (format!("ws://{address}/ws"), write_tokens(directory.path()));
    let own = std::process::id().to_string();
    let rest = ["--hold", "100ms", "--settle", "0s", "--server-pid", &own];
    let options = Idle::parse_from(arguments(&url, &tokens, &rest)).options;
    assert!(idle::run(options).await.unwrap());
}
