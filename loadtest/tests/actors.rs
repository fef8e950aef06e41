//! Actors, audit and checkers together, against a model that keeps the contract and against models that break it.

#![allow(clippy::unwrap_used, reason = "a test may panic; the lint knows only functions marked as tests")]

mod model;

use std::time::Duration;

use loadtest::actor::{Actor, Habits, Plan};
use loadtest::audit;
use loadtest::check::{Checker, Expect, Verdict, judge};
use loadtest::client::Target;
use loadtest::frame::direct_name;
use loadtest::record::{ClientId, Entry, Recorder, What};
use model::{Model, Plant};

const USERS: u64 = 4;
const SENDS: usize = 400;
/// A fault of the connections after so many sends.
const FAULT_EVERY: usize = 40;
/// Longer than anything takes that is going to happen at all.
const PATIENCE: Duration = Duration::from_secs(60);

/// Users chat while connections are cut and asked to move in turn; then everything is read back.
async fn chat(model: &Model, target: &Target) -> Vec<Entry> {
    let recorder = Recorder::in_memory();
    let actors: Vec<_> = (1..=USERS).map(|user| start(target, user, &recorder)).collect();
    for n in 0..SENDS {
        let sender = &actors[n % actors.len()];
        let user = sender.client().user;
        let conversation = direct_name(user, 1 + (user + n as u64) % USERS);
        sender.send(&conversation, format!("message {n}")).unwrap();
        if n % FAULT_EVERY == FAULT_EVERY - 1 {
            if n % (2 * FAULT_EVERY) < FAULT_EVERY {
                model.cut();
            } else {
                model.ask_to_move();
            }
            for actor in &actors {
                tokio::time::timeout(PATIENCE, actor.wait_until(|status| status.unsettled < 5)).await.unwrap().unwrap();
            }
        }
    }
    for actor in &actors {
        let settled = actor.wait_until(|status| status.attached && status.unsettled == 0);
        tokio::time::timeout(PATIENCE, settled).await.unwrap().unwrap();
    }
    for actor in actors {
        let user = actor.client().user;
        let conversations: Vec<_> = (1..=USERS).map(|other| direct_name(user, other)).collect();
        let target = target.with_token(&user.to_string());
        let head = audit::read_back(&target, &ClientId::new(user, "audit"), &conversations, &recorder).await.unwrap();
        tokio::time::timeout(PATIENCE, actor.wait_until(|status| status.cursor >= head)).await.unwrap().unwrap();
        actor.stop().await.unwrap();
    }
    recorder.recording().unwrap()
}

fn start(target: &Target, user: u64, recorder: &Recorder) -> Actor {
    let habits = Habits { backoff: Duration::from_millis(2), backoff_max: Duration::from_millis(20), ..Habits::default() };
    let (target, client) = (target.with_token(&user.to_string()), ClientId::new(user, "phone"));
    Actor::start(Plan { targets: vec![target], client, habits, seed: user }, recorder)
}

async fn verdict(plant: Plant, refuses: bool) -> (Verdict, Vec<Entry>) {
    let (model, address) = Model::start(plant, refuses).await;
    let target = Target::resolve(&format!("ws://{address}/ws")).await.unwrap();
    let entries = chat(&model, &target).await;
    (judge(&entries, Expect::sends(SENDS)), entries)
}

#[tokio::test]
async fn a_server_that_keeps_the_contract_is_found_clean() {
    let (verdict, entries) = verdict(Plant::Cuts, true).await;
    assert!(verdict.is_clean(), "{verdict}");
    assert_eq!((verdict.sends, verdict.accepted), (SENDS, SENDS));
    let count = |test: fn(&What) -> bool| entries.iter().filter(|entry| test(&entry.what)).count();
    assert!(count(|what| matches!(what, What::Move { .. })) >= 4, "everybody was asked to move");
    assert!(count(|what| matches!(what, What::Close { code: None, .. })) >= 4, "everybody was cut off");
    let cut_in_flight = count(|what| matches!(what, What::Close { in_flight: 1.., .. }));
    assert!(cut_in_flight > 0, "some were cut off with sends in flight");
    assert!(count(|what| matches!(what, What::Refused { is_final: false, .. })) > 0, "some were refused for the moment");
}

#[tokio::test]
async fn a_server_that_loses_is_found_out() {
    let (verdict, _) = verdict(Plant::Loss, false).await;
    assert_eq!(verdict.fired(), [Checker::Lost], "{verdict}");
}

#[tokio::test]
async fn a_server_that_doubles_is_found_out() {
    let (verdict, _) = verdict(Plant::Double, false).await;
    assert!(verdict.fired().contains(&Checker::Duplicate), "{verdict}");
}

#[tokio::test]
async fn a_server_that_skips_is_found_out() {
    let (verdict, _) = verdict(Plant::Hole, false).await;
    assert!(verdict.fired().contains(&Checker::Gap), "{verdict}");
}
