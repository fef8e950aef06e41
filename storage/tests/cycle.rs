//! The commit cycle from outside: what it accepts is there, once, in order, whatever comes.

#![allow(clippy::unwrap_used, reason = "tests; the lint only knows functions marked as such")]

mod harness;

use std::collections::{HashMap, HashSet};

use harness::{Bench, record, wait};
use proptest::prelude::*;
use protocol::record::{Content, EventBody, Record};
use protocol::{ErrorCode, Position};
use router::submit::Outcome;
use storage::cycle::Limits;
use storage::store::Store;
use storage::store::contract::user;

const PLENTY: u32 = 1 << 30;

#[test]
fn accepted_is_in_both_mailboxes_in_order_and_pushed() {
    let bench = Bench::new(Limits::default());
    bench.attach(2);
    let outcomes = bench.send_all((1..=200).map(|number| record(1, 2, number, "hi")));
    assert_eq!(outcomes, vec![Outcome::Accepted; 200]);
    for owner in [1, 2] {
        let events = bench.mailbox(owner);
        assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), (1..=200).collect::<Vec<_>>());
        let positions: Vec<_> = events.iter().map(|event| event.body.position()).collect();
        assert!(positions.is_sorted() && positions[0] >= Position::new(1, 0));
    }
    let pushed = bench.pushed();
    assert_eq!(
        pushed.iter().map(|push| (push.owner, push.event.seq)).collect::<Vec<_>>(),
        (1..=200).map(|seq| (user(2), seq)).collect::<Vec<_>>()
    );
    assert!(bench.wakes() >= 1, "sessions are woken");
}

#[test]
fn a_repeat_is_accepted_and_is_one_message() {
    let bench = Bench::new(Limits::default());
    let first = record(1, 2, 1, "hi");
    let twice = bench.send_all([first.clone(), first.clone()]);
    let again = bench.send_all([Record { at_ms: 999, ..first.clone() }]);
    assert_eq!((twice, again), (vec![Outcome::Accepted; 2], vec![Outcome::Accepted]));
    assert_eq!(bench.mailbox(1).len(), 1);
    let bench = bench.reopen();
    assert_eq!(bench.send_all([first]), [Outcome::Accepted]);
    assert_eq!(bench.mailbox(2).len(), 1);
}

#[test]
fn another_body_is_refused_once_for_each_body() {
    let bench = Bench::new(Limits::default());
    let with = |text: &str| record(1, 2, 1, text);
    let reused = Outcome::Refused(ErrorCode::IdReused);
    let outcomes = bench.send_all([with("a"), with("b"), with("b"), with("c"), with("a")]);
    assert_eq!(outcomes, [Outcome::Accepted, reused, reused, reused, Outcome::Accepted]);
    assert_eq!(bench.send_all([with("c"), with("b")]), [reused, reused]);
    let own: Vec<_> = bench.mailbox(1).into_iter().map(|event| matches!(event.body, EventBody::Refused(_))).collect();
    assert_eq!(own, [false, true, true]);
    assert_eq!(bench.mailbox(2).len(), 1);
}

#[test]
fn a_chat_with_oneself_is_one_event() {
    let bench = Bench::new(Limits::default());
    assert_eq!(bench.send_all([record(7, 7, 1, "note"), record(7, 7, 1, "note")]), [Outcome::Accepted; 2]);
    assert_eq!(bench.mailbox(7).len(), 1);
}

#[test]
fn a_full_queue_refuses_and_loses_nothing_it_took() {
    let bench = Bench::new(Limits { queue_records: 8, batch_records: 1, ..Limits::default() });
    let outcomes = bench.send_all((1..=2000).map(|number| record(1, 2, number, "hi")));
    let accepted = outcomes.iter().filter(|outcome| **outcome == Outcome::Accepted).count();
    let refused = outcomes.iter().filter(|outcome| **outcome == Outcome::Refused(ErrorCode::Unavailable)).count();
    assert_eq!(accepted + refused, 2000);
    assert!(accepted >= 8 && refused > 0, "{accepted} accepted, {refused} refused");
    assert_eq!(bench.mailbox(2).len(), accepted);
}

#[test]
fn closing_finishes_what_waits_and_then_refuses() {
    let bench = Bench::new(Limits::default());
    let tickets = bench.send((1..=300).map(|number| record(1, 2, number, "hi")));
    bench.cycle().close();
    assert_eq!(tickets.wait(), vec![Outcome::Accepted; 300]);
    assert_eq!(bench.send_all([record(1, 2, 999, "late")]), [Outcome::Refused(ErrorCode::Unavailable)]);
    assert_eq!(bench.mailbox(2).len(), 300);
}

/// The folder as it is at some instant, without closing anything, holds all that was accepted before.
#[test]
fn accepted_survives_a_crash_at_any_time() {
    let bench = Bench::new(Limits { batch_records: 3, ..Limits::default() });
    for round in 0..4_u64 {
        let tickets = bench.send((1..=150).map(|number| record(1, 2, round * 1000 + number, "a message of some length")));
        tickets.wait_for(75);
        let accepted: HashSet<_> = tickets.accepted().into_iter().collect();
        let crashed = bench.crash();
        let there: Vec<_> = crashed.mailbox(2).iter().map(|event| event.body.clone()).collect();
        assert_eq!(
            crashed.mailbox(1).iter().map(|event| event.body.clone()).collect::<Vec<_>>(),
            there,
            "a batch is whole or not at all"
        );
        let ids: Vec<_> = there.iter().map(harness::number_of).collect();
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len(), "nothing is doubled");
        for number in accepted {
            assert!(ids.contains(&number), "accepted message {number} is lost");
        }
        // the sender repeats everything that it has no answer to, and more
        crashed.send_all((1..=150).map(|number| record(1, 2, round * 1000 + number, "a message of some length")));
        let after = crashed.mailbox(2);
        assert_eq!(after.len() as u64, (round + 1) * 150);
        let positions: HashSet<_> = after.iter().map(|event| event.body.position()).collect();
        assert_eq!(positions.len(), after.len(), "no position is given twice");
        tickets.wait();
    }
}

#[test]
fn a_failed_write_ends_it_loudly_and_accepts_nothing_more() {
    let bench = Bench::new(Limits::default());
    assert_eq!(bench.send_all([record(1, 2, 1, "hi")]), [Outcome::Accepted]);
    // another owner: the store refuses the cycle's next commit
    bench.block_on(bench.store().acquire(router::expand::ShardId(0))).unwrap();
    assert_eq!(bench.send_all([record(1, 2, 2, "hi")]), [Outcome::Unknown]);
    assert_eq!(bench.fatal().len(), 1, "the process would have ended, once");
    wait(|| bench.send_all([record(1, 2, 3, "hi")]) == [Outcome::Refused(ErrorCode::Unavailable)]);
    assert_eq!(bench.mailbox(2).len(), 1);
}

/// What the cycle must do, without any batch, key or engine.
#[derive(Default)]
struct Model {
    first: HashMap<(u64, u64, u64), String>,
    refused: HashSet<(u64, u64, u64, String)>,
    mailboxes: HashMap<u64, Vec<(u64, String, bool)>>,
}

impl Model {
    fn send(&mut self, (from, to, number, text): &(u64, u64, u64, String)) -> Outcome {
        let key = (*from, *to, *number);
        match self.first.get(&key) {
            Some(first) if first == text => Outcome::Accepted,
            Some(_) => {
                if self.refused.insert((*from, *to, *number, text.clone())) {
                    self.mailboxes.entry(*from).or_default().push((*number, String::new(), true));
                }
                Outcome::Refused(ErrorCode::IdReused)
            }
            None => {
                self.first.insert(key, text.clone());
                for owner in HashSet::from([*from, *to]) {
                    self.mailboxes.entry(owner).or_default().push((*number, text.clone(), false));
                }
                Outcome::Accepted
            }
        }
    }
}

fn seen(body: &EventBody) -> (u64, String, bool) {
    match body {
        EventBody::Message(message) => {
            let Content::Text(text) = &message.record.content;
            (harness::number_of(body), text.clone(), false)
        }
        EventBody::Refused(_) => (harness::number_of(body), String::new(), true),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10))]
    #[test]
    fn it_does_what_the_model_does(
        batches in proptest::collection::vec(
            proptest::collection::vec((1..5_u64, 1..5_u64, 1..12_u64, "[ab]"), 1..25), 1..8),
        limit in 1..16_usize,
        reopen_at in 0..8_usize,
    ) {
        let mut bench = Bench::new(Limits { batch_records: limit, ..Limits::default() });
        let mut model = Model::default();
        for (at, batch) in batches.iter().enumerate() {
            let expected: Vec<_> = batch.iter().map(|send| model.send(send)).collect();
            let sends = batch.iter().map(|(from, to, number, text)| record(*from, *to, *number, text));
            prop_assert_eq!(bench.send_all(sends), expected);
            if at == reopen_at {
                bench = bench.reopen();
            }
        }
        for owner in 1..5 {
            let events = bench.mailbox(owner);
            let seqs: Vec<_> = events.iter().map(|event| event.seq).collect();
            prop_assert_eq!(seqs, (1..=events.len() as u64).collect::<Vec<_>>());
            let got: Vec<_> = events.iter().map(|event| seen(&event.body)).collect();
            prop_assert_eq!(got.clone(), model.mailboxes.get(&owner).cloned().unwrap_or_default());
            let history: usize = (1..5).map(|other| {
                let conversation = protocol::ConversationId::direct(user(owner), user(other));
                bench.block_on(bench.store().history(user(owner), conversation, Position::MAX, PLENTY)).unwrap().messages.len()
            }).sum();
            prop_assert_eq!(history, got.iter().filter(|(_, _, refused)| !refused).count());
        }
    }
}
