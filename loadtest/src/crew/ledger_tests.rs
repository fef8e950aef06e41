//! Faults planted under the streaming judge.

use std::time::Duration;

use super::*;
use crate::scenario::Body;

/// Two users with two devices each: 100 and 200; lanes 0 and 1 are 100's.
fn ledger() -> Ledger {
    Ledger::new(vec![100, 200], 2, 40, Bodies::new(1, Duration::from_secs(1_700_000_000), Body::default()))
}

fn place(user: u32, device: u32, seq: u64) -> Place<'static> {
    Place { user, device, seq, position: 7, conversation: "d:100:200", from: Some(100) }
}

/// Lane 0 sends one message, which is accepted and shown everywhere.
fn settle_one(ledger: &Ledger, seq: u64) -> u32 {
    let number = ledger.sent(0, 1, 5);
    assert_eq!(ledger.accepted(0, number), Some(5));
    assert_eq!(ledger.accepted(0, number), None, "the second answer is not measured");
    for (user, device) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let shown = ledger.shown(40, number, place(user, device, seq));
        assert_eq!(shown, if user == 0 { Shown::Copied(5) } else { Shown::Received(5) });
    }
    number
}

fn only(ledger: &Ledger, fault: Fault) {
    let found = ledger.offences.snapshot();
    assert_eq!(found.counts.iter().filter(|(_, count)| **count > 0).count(), 1, "{found:?}");
    assert_eq!(found.counts.get(&fault), Some(&1), "{found:?}");
}

#[test]
fn what_is_settled_is_forgotten() {
    let ledger = ledger();
    for n in 0..1000 {
        settle_one(&ledger, n + 1);
    }
    assert_eq!(ledger.progress(), (1000, 1000));
    assert!(ledger.window(0).unwrap().entries.is_empty());
    ledger.close();
    assert!(ledger.offences.snapshot().is_clean());
}

#[test]
fn a_loss_is_found_at_the_end_with_its_id_and_device() {
    let ledger = ledger();
    let number = ledger.sent(0, 1, 5);
    ledger.accepted(0, number);
    for (user, device) in [(0, 0), (0, 1), (1, 0)] {
        ledger.shown(40, number, place(user, device, 1));
    }
    ledger.close();
    only(&ledger, Fault::Lost);
    let offence = ledger.offences.snapshot().samples.concat();
    let id = ledger.bodies.id(40, number, 5).to_string();
    assert!(offence.contains(&id) && offence.ends_with("never shown to 200/1"), "{offence}");
}

#[test]
fn a_send_without_an_answer_is_silent() {
    let ledger = ledger();
    ledger.sent(0, 1, 5);
    ledger.close();
    only(&ledger, Fault::Silent);
}

#[test]
fn a_message_shown_twice_is_a_duplicate_before_and_after_it_is_settled() {
    let before = ledger();
    let number = before.sent(0, 1, 5);
    before.accepted(0, number);
    before.shown(40, number, place(1, 0, 1));
    assert_eq!(before.shown(40, number, place(1, 0, 2)), Shown::Wrong);
    assert_eq!(before.offences.snapshot().counts.get(&Fault::Duplicate), Some(&1));
    let after = ledger();
    let number = settle_one(&after, 1);
    assert_eq!(after.shown(40, number, place(1, 0, 2)), Shown::Wrong);
    only(&after, Fault::Duplicate);
}

#[test]
fn devices_that_disagree_are_found() {
    let ledger = ledger();
    let number = ledger.sent(0, 1, 5);
    ledger.shown(40, number, place(1, 0, 1));
    assert_eq!(ledger.shown(40, number, Place { position: 8, ..place(1, 1, 1) }), Shown::Wrong);
    only(&ledger, Fault::Order);
    let other = self::ledger();
    let number = other.sent(0, 1, 5);
    other.shown(40, number, place(1, 0, 1));
    assert_eq!(other.shown(40, number, place(1, 1, 2)), Shown::Wrong);
    only(&other, Fault::Duplicate);
}

#[test]
fn what_was_never_sent_or_is_not_theirs_is_a_phantom() {
    let never = ledger();
    assert_eq!(never.shown(40, 0, place(1, 0, 1)), Shown::Wrong);
    only(&never, Fault::Phantom);
    let stranger = ledger();
    assert_eq!(stranger.shown(39, 0, place(1, 0, 1)), Shown::Wrong);
    only(&stranger, Fault::Phantom);
    let forged = ledger();
    let number = forged.sent(0, 1, 5);
    assert_eq!(forged.shown(40, number, Place { from: Some(200), ..place(1, 0, 1) }), Shown::Wrong);
    only(&forged, Fault::Phantom);
}

#[test]
fn a_loss_does_not_make_memory_grow() {
    let ledger = ledger();
    let lost = ledger.sent(0, 1, 5);
    ledger.accepted(0, lost);
    for n in 0..WINDOW_MAX as u64 {
        settle_one(&ledger, n + 2);
    }
    only(&ledger, Fault::Lost);
    assert!(ledger.window(0).unwrap().entries.len() <= 1);
}

#[test]
fn a_refused_message_may_not_be_shown() {
    let ledger = ledger();
    let number = ledger.sent(0, 1, 5);
    ledger.refused(0, number, "too_large");
    assert_eq!(ledger.shown(40, number, place(1, 0, 1)), Shown::Wrong);
    let found = ledger.offences.snapshot();
    assert_eq!((found.counts.get(&Fault::Refused), found.counts.get(&Fault::Duplicate)), (Some(&1), Some(&1)));
}
