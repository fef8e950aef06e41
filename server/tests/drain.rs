//! SIGTERM under load: everybody is told to go, every send is answered, the process ends well, everybody resumes.

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use loadtest::actor::Actor;
use loadtest::check::{Expect, judge};
use loadtest::frame::direct_name;
use loadtest::record::{ClientId, Entry, Recorder, What};
use support::{Stand, actor, all_reach, settle_and_read_back};
use tokio::time::Instant;

const SOCKETS: u64 = 500;
/// Sends a second of all sockets together.
const RATE: u32 = 200;
/// The promise under test.
const DEADLINE: Duration = Duration::from_secs(10);
/// What a process needs to be reaped on a busy machine, beyond the promise.
const REAPED: Duration = Duration::from_secs(2);
/// The load before and after the drain.
const SENDS_AROUND: u32 = 400;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_drain_loses_nothing_and_leaves_no_send_without_an_answer() {
    let mut stand = Stand::new(&[("SWITCHBOARD_DRAIN__WINDOW", "2s"), ("SWITCHBOARD_DRAIN__DEADLINE", "10s")]);
    let accounts = stand.accounts(SOCKETS).await;
    let server = stand.start().await;
    let target = stand.target().await;
    let recorder = Recorder::in_memory();
    let actors: Vec<_> = accounts.iter().map(|account| actor(&target, account, "phone", &recorder)).collect();
    all_reach(&actors, "first attach", |status| status.attached).await;

    let sent = AtomicU32::new(0);
    let stop = AtomicBool::new(false);
    let faults = async {
        reach(&sent, SENDS_AROUND).await;
        server.terminate().await;
        let status = server.ended(DEADLINE + REAPED).await;
        assert_eq!(status.code(), Some(0), "{status}\n{}", stand.tail());
        let server = stand.start().await;
        all_reach(&actors, "second attach", |status| status.attached && status.attaches >= 2).await;
        reach(&sent, sent.load(Ordering::Relaxed) + SENDS_AROUND).await;
        stop.store(true, Ordering::Relaxed);
        server
    };
    let (server, ()) = tokio::join!(faults, load(&actors, &sent, &stop));
    assert!(actors.iter().all(|actor| actor.status().moves >= 1), "everybody was told to move");

    let conversations = |user| vec![direct_name(user, partner(user))];
    let entries = settle_and_read_back(&target, &accounts, actors, conversations, &recorder).await;
    let verdict = judge(&entries, Expect::sends(usize::try_from(sent.load(Ordering::Relaxed)).expect("fits")));
    println!("{verdict}");
    let left = unanswered(&entries);
    if !verdict.is_clean() || !left.is_empty() {
        stand.keep("drain", &entries);
    }
    assert!(verdict.is_clean(), "{verdict}");
    assert!(left.is_empty(), "connections that ended with sends unanswered: {left:?}");
    server.kill().await;
}

/// Users chat in pairs: 1 with 2, 3 with 4, …
fn partner(user: u64) -> u64 {
    ((user - 1) ^ 1) + 1
}

async fn reach(sent: &AtomicU32, count: u32) {
    while sent.load(Ordering::Relaxed) < count {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// An open loop over all sockets in turn, also while the server drains.
async fn load(actors: &[Actor], sent: &AtomicU32, stop: &AtomicBool) {
    let start = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let n = sent.load(Ordering::Relaxed);
        tokio::time::sleep_until(start + Duration::from_secs(1) * n / RATE).await;
        // A stride that is prime to the number of sockets visits all of them, not in order.
        let sender = &actors[n as usize * 7 % actors.len()];
        let user = sender.client().user;
        sender.send(&direct_name(user, partner(user)), format!("message {n}")).expect("room in the outbox");
        sent.store(n + 1, Ordering::Relaxed);
    }
}

/// The devices whose connection ended, after `move`, while answers were owed.
fn unanswered(entries: &[Entry]) -> BTreeMap<&ClientId, usize> {
    let ends = entries.iter().filter_map(|entry| match entry.what {
        What::Close { in_flight: in_flight @ 1.., .. } => Some((&entry.client, in_flight)),
        _ => None,
    });
    ends.collect()
}
