//! The server is killed again and again under load, and nothing that was accepted is lost, doubled or reordered.

mod support;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use loadtest::actor::Actor;
use loadtest::check::{Expect, judge};
use loadtest::frame::{Encoding, direct_name};
use loadtest::record::{Recorder, What};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use support::{Stand, actor, all_reach, settle_and_read_back};
use tokio::time::Instant;

const USERS: u64 = 8;
const DEVICES: [&str; 2] = ["a", "b"];
/// Sends a second of all devices together.
const RATE: u32 = 300;
const ROUNDS: usize = 20;
/// In Protobuf only the frames are others.
const ROUNDS_PROTO: usize = 6;
/// Over TLS the same code runs under another stream: a part of the kills.
const ROUNDS_OVER_TLS: usize = 6;

/// A number from the environment, so that a run can be longer or be repeated.
fn setting<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

/// Every restart repeats what was unanswered: room for it in the rate, so that kills are tested and not limits.
const SETTINGS: [(&str, &str); 2] = [("SWITCHBOARD_LIMITS__SENDS_PER_S", "500"), ("SWITCHBOARD_LIMITS__SENDS_BURST", "1000")];

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn accepted_messages_survive_kills() {
    survive(Stand::new(&SETTINGS), Encoding::Json, ROUNDS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn accepted_messages_survive_kills_in_protobuf() {
    survive(Stand::new(&SETTINGS), Encoding::Proto, ROUNDS_PROTO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn accepted_messages_survive_kills_over_tls() {
    survive(Stand::over_tls(&SETTINGS), Encoding::Json, ROUNDS_OVER_TLS).await;
}

async fn survive(mut stand: Stand, encoding: Encoding, rounds: usize) {
    let seed: u64 = setting("SWITCHBOARD_SEED").unwrap_or_else(rand::random);
    let rounds = setting("SWITCHBOARD_KILL_ROUNDS").unwrap_or(rounds);
    println!("{}: seed {seed}: repeat with SWITCHBOARD_SEED={seed}; {rounds} kills", encoding.name());
    let mut rng = StdRng::seed_from_u64(seed);
    let accounts = stand.accounts(USERS).await;
    let mut server = stand.start().await;
    let target = stand.target().await.with_encoding(encoding);
    let recorder = Recorder::in_memory();
    let actors: Vec<_> =
        accounts.iter().flat_map(|account| DEVICES.map(|device| actor(&target, account, device, &recorder))).collect();
    all_reach(&actors, "first attach", |status| status.attached).await;

    let (stop, sends) = (AtomicBool::new(false), AtomicU32::new(0));
    let load_rng = StdRng::seed_from_u64(rng.random());
    let kills = async {
        for _ in 0..rounds {
            // The moment of the kill is the fault, not a wait for something.
            tokio::time::sleep(Duration::from_millis(rng.random_range(150..=900))).await;
            // Everybody has just sent something: kills find sends in flight, whatever the server's speed.
            actors.iter().for_each(|sender| send(sender, 1, &sends));
            server.kill().await;
            server = stand.start().await;
        }
        stop.store(true, Ordering::Relaxed);
        server
    };
    let (server, ()) = tokio::join!(kills, load(&actors, load_rng, (&sends, &stop)));
    let sends = usize::try_from(sends.load(Ordering::Relaxed)).expect("fits");

    let conversations = |user| (1..=USERS).map(|other| direct_name(user, other)).collect();
    let clients: Vec<_> = actors.iter().map(|actor| actor.client().clone()).collect();
    let entries = settle_and_read_back(&target, &accounts, actors, conversations, &recorder).await;
    let verdict = judge(&entries, Expect::sends(sends));
    println!("{verdict}");
    if !verdict.is_clean() {
        stand.keep(&format!("kill_loop-{}", encoding.name()), &entries);
    }
    assert!(verdict.is_clean(), "{verdict}");

    // A fault that did not bite proves nothing.
    for client in &clients {
        let attaches = recorder.count(|entry| entry.client == *client && matches!(entry.what, What::Attach { .. }));
        assert!(attaches >= 2, "{client} was never cut off");
    }
    let cut = recorder.count(|entry| matches!(entry.what, What::Close { in_flight: 1.., .. }));
    println!("{cut} connections were cut with sends in flight");
    assert!(cut >= rounds / 4, "sends were in flight when the server was killed: only {cut} of {rounds} kills");
    server.kill().await;
}

/// An open loop: every send is decided at its time, whether the server is there or not.
async fn load(actors: &[Actor], mut rng: StdRng, (sends, stop): (&AtomicU32, &AtomicBool)) {
    let start = Instant::now();
    for n in 0.. {
        tokio::time::sleep_until(start + Duration::from_secs(1) * n / RATE).await;
        if stop.load(Ordering::Relaxed) {
            return;
        }
        send(&actors[rng.random_range(0..actors.len())], rng.random_range(1..=USERS), sends);
    }
}

fn send(sender: &Actor, to: u64, sends: &AtomicU32) {
    let number = sends.fetch_add(1, Ordering::Relaxed);
    let conversation = direct_name(sender.client().user, to);
    sender.send(&conversation, format!("message {number} of {}", sender.client())).expect("room in the outbox");
}
