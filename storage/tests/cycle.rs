//! The commit cycle from outside: what it accepts is there, once, in order, whatever comes.

#![allow(clippy::unwrap_used, reason = "tests; the lint only knows functions marked as such")]

mod harness;

use std::collections::{HashMap, HashSet};

use harness::{Bench, record, wait};
use proptest::prelude::*;
use protocol::receipt::{Marks, Receipt};
use protocol::record::{Content, EventBody, Record};
use protocol::{ConversationId, ErrorCode, Position};
use router::submit::Outcome;
use storage::cycle::Limits;
use storage::receipt::{Mark, TakeMarks};
use storage::store::contract::user;
use storage::store::{Place, Store};

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

fn mark(member: u64, other: u64, delivered: Position, read: Position) -> Mark {
    let conversation = ConversationId::direct(user(member), user(other));
    Mark::Marks { member: user(member), conversation, marks: Marks { delivered, read } }
}

/// The receipts of a mailbox, newest last.
fn receipts(bench: &Bench, owner: u64) -> Vec<Receipt> {
    bench.block_on(bench.store().receipts_since(user(owner), 0, 1000)).unwrap()
}

fn position_of(bench: &Bench, owner: u64, seq: usize) -> Position {
    bench.mailbox(owner)[seq - 1].body.position()
}

#[test]
fn marks_become_receipts_of_both_and_are_pushed_to_who_is_here() {
    let bench = Bench::new(Limits::default());
    bench.attach(1);
    bench.send_all((1..=3).map(|number| record(1, 2, number, "hi")));
    let (second, third) = (position_of(&bench, 2, 2), position_of(&bench, 2, 3));
    assert_eq!(bench.cycle().take_marks(vec![mark(2, 1, third, second)]), []);
    wait(|| !bench.pushed_receipts().is_empty());
    let pushed = bench.pushed_receipts();
    let marks = Marks { delivered: third, read: second };
    assert_eq!(pushed.iter().map(|push| (push.owner, push.receipt.marks)).collect::<Vec<_>>(), [(user(1), marks)]);
    assert_eq!(receipts(&bench, 1), [pushed[0].receipt]);
    assert_eq!(receipts(&bench, 2), [pushed[0].receipt], "the reader's other devices learn it too");
    // a lower mark, and the same again: nothing changes, nobody is told
    bench.cycle().take_marks(vec![mark(2, 1, second, second), mark(2, 1, third, second)]);
    bench.cycle().take_marks(vec![mark(2, 1, third, third)]);
    wait(|| bench.pushed_receipts().len() > 1);
    let pushed = bench.pushed_receipts();
    assert_eq!(pushed.len(), 2);
    assert!(pushed[1].receipt.rev > pushed[0].receipt.rev);
    // revisions are places of the log: no message has one of them
    bench.send_all([record(1, 2, 4, "hi")]);
    assert!(position_of(&bench, 2, 4).get() > pushed[1].receipt.rev);
}

#[test]
fn a_full_queue_gives_marks_back_and_a_closed_one_all() {
    let bench = Bench::new(Limits { queue_marks: 4, batch_marks: 1, ..Limits::default() });
    bench.send_all([record(1, 2, 1, "hi")]);
    let at = |number| Position::from_stored(number);
    let marks: Vec<_> = (1..=500).map(|number| mark(2, 1, at(number), at(0))).collect();
    let mut left = marks;
    for _ in 0..10_000 {
        left = bench.cycle().take_marks(left);
        if left.is_empty() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_micros(200));
    }
    assert_eq!(left, [], "all are taken in time");
    wait(|| receipts(&bench, 1).first().is_some_and(|receipt| receipt.marks.delivered == at(500)));
    bench.cycle().close();
    let late = vec![mark(2, 1, at(900), at(0))];
    assert_eq!(bench.cycle().take_marks(late.clone()), late);
}

#[test]
fn receipts_and_what_is_told_survive_a_crash_together() {
    let bench = Bench::new(Limits::default());
    bench.send_all((1..=5).map(|number| record(1, 2, number, "hi")));
    let fifth = position_of(&bench, 2, 5);
    let through = Mark::Through { member: user(2), seq: 5 };
    bench.cycle().take_marks(vec![mark(2, 1, fifth, Position::default()), through]);
    let told = |bench: &Bench| bench.block_on(bench.store().delivered(user(2), Place { epoch: 1, seq: 5 }, 0)).unwrap().is_none();
    wait(|| told(&bench));
    let crashed = bench.crash();
    assert!(told(&crashed));
    assert_eq!(receipts(&crashed, 1), receipts(&bench, 1));
    // the next revision is above those from before
    crashed.cycle().take_marks(vec![mark(2, 1, fifth, fifth)]);
    wait(|| receipts(&crashed, 2).len() == 1);
    assert!(receipts(&crashed, 1)[0].rev > receipts(&bench, 1)[0].rev);
}
