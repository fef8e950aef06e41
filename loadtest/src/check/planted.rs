//! Every fault planted into a good recording: exactly its checker must fire.

use uuid::Uuid;

use super::*;
use crate::frame::EventKind;
use crate::record::{ClientId, Seen, What};

const CONVERSATION: &str = "d:1:2";
const SENDS: u64 = 40;

fn client(text: &str) -> ClientId {
    ClientId::try_from(text.to_owned()).unwrap()
}

fn ids() -> Vec<Uuid> {
    (0..SENDS).map(|n| Uuid::from_u128(u128::from(n) + 1)).collect()
}

/// The n-th message, from 1 and 2 in turn.
fn seen(n: u64) -> Seen {
    Seen {
        event: EventKind::Message,
        conversation: CONVERSATION.to_owned(),
        position: 1000 + n,
        from: Some(1 + n % 2),
        id: ids()[usize::try_from(n).unwrap()],
        text: format!("text {n}"),
    }
}

struct Tape(Vec<Entry>);

impl Tape {
    fn add(&mut self, who: &str, what: What) {
        let t_us = self.0.len() as u64;
        self.0.push(Entry { t_us, client: client(who), what });
    }

    fn attach(&mut self, who: &str, cursor: u64) {
        self.add(who, What::Attach { cursor: Some(cursor), epoch: "1".to_owned() });
    }

    fn deliver(&mut self, who: &str, from: u64, to: u64) {
        for n in from..to {
            self.add(who, What::Deliver { seq: n + 1, seen: seen(n) });
        }
    }

    fn judge(&self) -> Verdict {
        judge(&self.0, Expect::sends(usize::try_from(SENDS).unwrap()))
    }

    /// The entries of this device that pass the test.
    fn of<'a>(&'a mut self, user: u64, test: impl Fn(&What) -> bool + 'a) -> impl Iterator<Item = &'a mut Entry> {
        self.0.iter_mut().filter(move |entry| entry.client.user == user && test(&entry.what))
    }

    fn drop_where(&mut self, test: impl Fn(&Entry) -> bool) {
        self.0.retain(|entry| !test(entry));
    }

    #[track_caller]
    fn fires(&self, checker: Checker) {
        let verdict = self.judge();
        assert_eq!(verdict.fired(), [checker], "{verdict}");
    }
}

/// Two users, one conversation, a second device, a reconnect, and everything read back.
fn good() -> Tape {
    let mut tape = Tape(Vec::new());
    ["1/a", "1/b", "2/a"].iter().for_each(|who| tape.attach(who, 0));
    for n in 0..SENDS {
        let (sender, id) = (if n % 2 == 0 { "1/a" } else { "2/a" }, ids()[usize::try_from(n).unwrap()]);
        tape.add(sender, What::Invoke { id, conversation: CONVERSATION.to_owned(), text: format!("text {n}") });
        if n % 8 == 3 {
            tape.add(sender, What::Refused { id, code: "rate".to_owned(), is_final: false });
        }
        tape.add(sender, What::Accepted { id, conversation: CONVERSATION.to_owned() });
    }
    tape.deliver("1/a", 0, SENDS);
    tape.deliver("1/b", 0, SENDS);
    tape.deliver("2/a", 0, 20);
    tape.add("2/a", What::Close { code: None, in_flight: 1, why: "killed".to_owned() });
    tape.attach("2/a", 18);
    tape.deliver("2/a", 18, SENDS);
    tape.add("2/a", What::Live { head: SENDS });
    for who in ["1/audit", "2/audit"] {
        tape.attach(who, 0);
        tape.deliver(who, 0, SENDS);
        tape.add(who, What::Live { head: SENDS });
        (0..SENDS).for_each(|n| tape.add(who, What::History { seen: seen(n) }));
        tape.add(who, What::HistoryEnd { conversation: CONVERSATION.to_owned() });
    }
    tape
}

fn delivered(what: &What, number: u64) -> bool {
    matches!(what, What::Deliver { seq, .. } if *seq == number)
}

#[test]
fn the_good_recording_is_clean() {
    let verdict = good().judge();
    assert!(verdict.is_clean(), "{verdict}");
    assert!(verdict.findings.iter().all(|finding| finding.examined > 0), "{verdict}");
    assert_eq!((verdict.sends, verdict.accepted, verdict.attaches), (40, 40, 6));
}

#[test]
fn loss_from_a_mailbox() {
    let mut tape = good();
    tape.drop_where(|entry| entry.client.user == 2 && delivered(&entry.what, 30));
    for entry in tape.of(2, |what| matches!(what, What::Deliver { seq, .. } if *seq > 30)) {
        let What::Deliver { seq, .. } = &mut entry.what else { unreachable!() };
        *seq -= 1;
    }
    for entry in tape.of(2, |what| matches!(what, What::Live { .. })) {
        entry.what = What::Live { head: SENDS - 1 };
    }
    tape.fires(Checker::Lost);
}

#[test]
fn loss_from_history() {
    let mut tape = good();
    let lost = seen(11).id;
    tape.drop_where(|entry| matches!(&entry.what, What::History { seen } if seen.id == lost));
    tape.fires(Checker::Lost);
}

#[test]
fn a_send_without_an_answer() {
    let mut tape = good();
    let (id, conversation) = (Uuid::from_u128(99), CONVERSATION.to_owned());
    tape.add("1/a", What::Invoke { id, conversation, text: "and?".to_owned() });
    tape.add("1/a", What::Unknown { id });
    tape.add("1/a", What::Refused { id, code: "busy".to_owned(), is_final: false });
    tape.fires(Checker::Silent);
}

#[test]
fn a_message_nobody_sent() {
    let mut tape = good();
    let ghost = Seen { id: Uuid::from_u128(99), position: 2000, ..seen(0) };
    tape.add("2/audit", What::Deliver { seq: SENDS + 1, seen: ghost });
    tape.fires(Checker::Phantom);
}

#[test]
fn a_message_with_another_body() {
    let mut tape = good();
    for entry in tape.of(2, |what| delivered(what, 7)) {
        let What::Deliver { seen, .. } = &mut entry.what else { unreachable!() };
        seen.text.push('!');
    }
    tape.fires(Checker::Phantom);
}

#[test]
fn a_message_that_was_finally_refused() {
    let mut tape = good();
    let (id, conversation) = (Uuid::from_u128(99), CONVERSATION.to_owned());
    tape.add("1/a", What::Invoke { id, conversation, text: "no".to_owned() });
    tape.add("1/a", What::Refused { id, code: "bad_id".to_owned(), is_final: true });
    let shown = Seen { id, position: 2000, from: Some(1), text: "no".to_owned(), ..seen(0) };
    tape.add("2/audit", What::Deliver { seq: SENDS + 1, seen: shown });
    tape.fires(Checker::Phantom);
}

#[test]
fn a_message_shown_to_a_stranger() {
    let mut tape = good();
    tape.attach("3/a", 0);
    tape.add("3/a", What::Deliver { seq: 1, seen: seen(0) });
    tape.fires(Checker::Phantom);
}

#[test]
fn one_message_under_two_numbers() {
    let mut tape = good();
    tape.add("2/audit", What::Deliver { seq: SENDS + 1, seen: seen(5) });
    tape.fires(Checker::Duplicate);
}

#[test]
fn one_number_twice_in_one_attach() {
    let mut tape = good();
    tape.add("1/a", What::Deliver { seq: SENDS, seen: seen(SENDS - 1) });
    tape.fires(Checker::Duplicate);
}

#[test]
fn one_message_at_two_positions() {
    let mut tape = good();
    for entry in tape.of(2, |what| delivered(what, SENDS)) {
        let What::Deliver { seen, .. } = &mut entry.what else { unreachable!() };
        seen.position += 500;
    }
    tape.fires(Checker::Duplicate);
}

#[test]
fn members_disagree_about_the_order() {
    let mut tape = good();
    for entry in tape.of(2, |what| delivered(what, 25) || delivered(what, 26)) {
        let What::Deliver { seq, seen: shown } = &mut entry.what else { unreachable!() };
        *shown = seen(if *seq == 25 { 25 } else { 24 });
    }
    tape.fires(Checker::Order);
}

#[test]
fn devices_of_one_user_disagree() {
    let mut tape = good();
    for (who, number) in [("1/a", 98), ("1/audit", 99)] {
        let (id, conversation) = (Uuid::from_u128(number), CONVERSATION.to_owned());
        tape.add("1/b", What::Invoke { id, conversation, text: "mine".to_owned() });
        let position = 1900 + u64::try_from(number).unwrap();
        let shown = Seen { id, position, from: Some(1), text: "mine".to_owned(), ..seen(0) };
        tape.add(who, What::Deliver { seq: SENDS + 1, seen: shown });
    }
    tape.fires(Checker::Order);
}

#[test]
fn a_sender_is_inverted() {
    let mut tape = good();
    let places: Vec<_> = tape.0.iter().enumerate().filter(|(_, entry)| matches!(entry.what, What::Invoke { .. })).collect();
    let (first, third) = (places[0].0, places[2].0);
    let (one, other) = (tape.0[first].what.clone(), tape.0[third].what.clone());
    (tape.0[first].what, tape.0[third].what) = (other, one);
    // The answer of the one that now comes later must not precede it.
    tape.drop_where(|entry| matches!(&entry.what, What::Accepted { id, .. } if *id == ids()[0]));
    tape.add("1/a", What::Accepted { id: ids()[0], conversation: CONVERSATION.to_owned() });
    tape.add("1/a", What::Accepted { id: ids()[2], conversation: CONVERSATION.to_owned() });
    tape.fires(Checker::Order);
}

#[test]
fn a_resume_that_skips() {
    let mut tape = good();
    for entry in tape.of(2, |what| matches!(what, What::Attach { cursor: Some(18), .. })) {
        entry.what = What::Attach { cursor: Some(17), epoch: "1".to_owned() };
    }
    tape.fires(Checker::Gap);
}

#[test]
fn a_hole_that_is_filled_later() {
    let mut tape = good();
    let showings = |tape: &Tape| -> Vec<usize> {
        let shown = |entry: &Entry| entry.client == client("2/a") && delivered(&entry.what, 19);
        (0..tape.0.len()).filter(|&index| shown(&tape.0[index])).collect()
    };
    let before = showings(&tape);
    tape.0.remove(before[0]);
    assert_eq!((before.len(), showings(&tape).len()), (2, 1), "the first showing is gone, the second stands");
    tape.fires(Checker::Gap);
}

#[test]
fn live_before_everything_was_shown() {
    let mut tape = good();
    tape.attach("1/b", SENDS - 1);
    tape.add("1/b", What::Live { head: SENDS });
    tape.fires(Checker::Gap);
}

#[test]
fn a_server_that_forgot() {
    let mut tape = good();
    tape.add("1/a", What::Resync { reason: "ahead".to_owned(), head: 3, floor: 0 });
    tape.fires(Checker::Gap);
}

#[test]
fn a_short_recording() {
    let mut tape = good();
    let late = ids()[30..].to_vec();
    tape.drop_where(|entry| matches!(&entry.what, What::Accepted { id, .. } if late.contains(id)));
    tape.fires(Checker::Thin);
}

#[test]
fn an_empty_recording() {
    let tape = Tape(Vec::new());
    tape.fires(Checker::Thin);
    assert_eq!(judge(&[], Expect { sends: 0, accepted: 0.95, read_back: false }).fired(), [Checker::Thin]);
}

#[test]
fn a_recording_that_was_not_read_back() {
    let mut tape = good();
    tape.drop_where(|entry| matches!(entry.what, What::History { .. } | What::HistoryEnd { .. }));
    tape.fires(Checker::Thin);
}
