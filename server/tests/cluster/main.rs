//! A real cluster under load, and what dies in it: Kafka, Redis, Postgres, and our own processes at named points of their work. After each fault
//! everything that was accepted must be in every mailbox once, in one order. A fault that did not bite is a failed row.
//!
//! Needs the engines (`scripts/setup kafka redis postgres nginx`), so it runs only with `TEST_CLUSTER=1`; `TEST_ROWS=F1,F7` picks rows,
//! `TEST_ROUNDS=10` repeats them, `TEST_CLUSTER_PORTS=22000` moves its ports, `TEST_KEEP_CLUSTER=1` leaves the cluster standing after a failure.

#![allow(clippy::unwrap_used, reason = "tests; the lint only knows functions marked as such")]

mod load;
mod mended;
mod proxy;
mod rows;
mod stand;
#[path = "../support/mod.rs"]
mod support;

use std::pin::Pin;

use tokio::time::Instant;

use stand::Stand;

type Row = for<'a> fn(&'a Stand) -> Pin<Box<dyn Future<Output = String> + 'a>>;

/// Rows that run only when they are named: they take minutes, or leave another cluster behind.
const BY_NAME: [&str; 3] = ["M1", "M2", "M4"];

/// The rows: number in the fault matrix, what happens, and the function that makes it happen and says what it saw.
const ROWS: [(&str, &str, Row); 20] = [
    ("F0", "nothing", |stand| Box::pin(rows::nothing(stand))),
    ("F1", "a gateway is killed", |stand| Box::pin(rows::gateway_killed(stand))),
    ("F2", "routers are killed at each place of their work", |stand| Box::pin(rows::routers_killed(stand))),
    ("F3", "storage owners are killed at each place of their work", |stand| Box::pin(rows::owners_killed(stand))),
    ("F4", "a broker is killed", |stand| Box::pin(rows::broker_killed(stand))),
    ("F6a", "Redis is flushed", |stand| Box::pin(rows::redis_flushed(stand))),
    ("F6b", "Redis stands still for 15 s", |stand| Box::pin(rows::redis_stands_still(stand))),
    ("F6c", "Redis is killed and comes back empty", |stand| Box::pin(rows::redis_killed(stand))),
    ("F7", "a database is killed", |stand| Box::pin(rows::database_killed(stand))),
    ("F8", "an owner stands still while another takes over", |stand| Box::pin(rows::owner_stands_still(stand))),
    ("F10", "a gateway is cut off from its engines and from those who push to it", |stand| Box::pin(rows::partitioned(stand))),
    ("F17", "every process of ours is replaced, one after the other", |stand| Box::pin(rows::rolling(stand))),
    ("F22", "shards move under load, and a mover is killed", |stand| Box::pin(rows::shards_move(stand))),
    ("J1", "processes join and leave", |stand| Box::pin(rows::join_and_leave(stand))),
    ("S1", "one device attaches at two gateways", |stand| Box::pin(rows::one_device_twice(stand))),
    ("M1", "records nobody can read stop a router and an owner", |stand| Box::pin(mended::stopped(stand))),
    ("M2", "nobody routes and nobody stores for longer than half of what the log keeps", |stand| Box::pin(mended::late(stand))),
    ("M3", "the mailboxes of a shard are other ones", |stand| Box::pin(mended::stream_epoch(stand))),
    ("M4", "the log is lost and begins anew", |stand| Box::pin(mended::new_log(stand))),
    ("A1", "devices attach elsewhere while their events are on the way", |stand| Box::pin(rows::attach_elsewhere(stand))),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_whatever_dies() {
    if std::env::var_os("TEST_CLUSTER").is_none() {
        println!("SKIPPED: set TEST_CLUSTER=1 (needs Kafka, Redis, Postgres: scripts/setup kafka redis postgres nginx)");
        return;
    }
    let wanted = std::env::var("TEST_ROWS").unwrap_or_default();
    let wanted: Vec<_> = wanted.split(',').filter(|name| !name.is_empty()).collect();
    let rounds = std::env::var("TEST_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1);
    let brokers = std::env::var("TEST_BROKERS").unwrap_or_else(|_| "1".into());
    let stand = Stand::up(&[
        "--brokers",
        &brokers,
        "--databases",
        "2",
        "--gateways",
        "2",
        "--routers",
        "2",
        "--storages",
        "2",
        "--redis",
        "single",
        "--no-nginx",
    ]);
    for round in 1..=rounds {
        for (name, what, row) in ROWS {
            if !wanted.contains(&name) && (!wanted.is_empty() || BY_NAME.contains(&name)) {
                continue;
            }
            let began = Instant::now();
            let saw = row(&stand).await;
            println!("{name:<4} {what}: {saw} [round {round}, {:.1?}]", began.elapsed());
            stand.all_ready().await;
        }
    }
}
