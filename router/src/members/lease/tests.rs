use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::members::reach::Reach;
use crate::members::{Members, Role, Roles, Troubles};
use crate::registry::Registration;

const SECOND: u64 = 1_000_000;
/// A time at which everything has long been in order.
const START: u64 = 1_000 * SECOND;

fn node(number: u16) -> NodeId {
    NodeId { node: number, boot: u64::from(number) }
}

fn seen(node: NodeId, seen_us: u64, since_us: u64) -> Seen {
    let member = Member {
        node,
        name: String::new(),
        roles: Roles::ALL,
        address: None,
        version: String::new(),
        started_ms: 0,
        troubles: Troubles::default(),
        reach: None,
    };
    Seen { member, seen_us, since_us }
}

fn answer(request: u64, now_us: u64, members: Vec<Seen>) -> Answer {
    Answer { request, now_us, born_us: SECOND, before_us: now_us - SECOND / 2, members, buried: Vec::new() }
}

/// A judge that has been in contact for long, with these members.
fn calm(members: &[NodeId]) -> Judge {
    let mut judge = Judge::new(Instant::now());
    for (request, at) in (START - 12 * SECOND..=START).step_by(500_000).enumerate() {
        let all = members.iter().map(|node| seen(*node, at, 2 * SECOND)).collect();
        let before_us = if request == 0 { 0 } else { at - SECOND / 2 };
        judge.heard(Answer { before_us, ..answer(request as u64 + 1, at, all) }, Instant::now());
    }
    assert!(judge.view.may_acquire() && judge.view.settled);
    judge
}

#[test]
fn a_silent_member_loses_its_roles_then_its_registrations() {
    let mut judge = calm(&[node(1), node(2)]);
    for (request, silent, acts, counts) in
        [(101, 1_900_000, true, true), (102, 2_000_000, false, true), (103, 10_000_000, false, false)]
    {
        let mut at =
            answer(request, START + silent, vec![seen(node(1), START + silent, 2 * SECOND), seen(node(2), START, 2 * SECOND)]);
        at.before_us = START + silent - SECOND / 2;
        let view = judge.heard(at, Instant::now());
        assert_eq!(view.live(Role::Storage).contains(&node(2)), acts, "{silent}");
        assert_eq!(view.members.iter().any(|member| member.node == node(2)), counts, "{silent}");
        assert_eq!(view.dead.contains(&node(2)), !counts);
    }
}

#[test]
fn nothing_is_taken_while_the_store_is_young() {
    let mut judge = Judge::new(Instant::now());
    for (request, age, hold_off) in [(1, 0, true), (2, 500_000, true), (3, 1_999_999, true), (4, 2_000_000, false)] {
        let now = START + age;
        let born = Answer { born_us: START, ..answer(request, now, vec![seen(node(1), now, START)]) };
        let view = judge.heard(born, Instant::now());
        assert_eq!(view.hold_off, hold_off, "{age}");
        assert_eq!(view.live(Role::Router), [node(1)], "who comes with the store counts at once");
        assert!(!view.settled);
    }
}

#[test]
fn who_joins_counts_when_it_may_take() {
    let mut judge = calm(&[node(1)]);
    for (request, there, counts) in [(101, 0, false), (102, 1_999_999, false), (103, 2_000_000, true)] {
        let now = START + there;
        let at = answer(request, now, vec![seen(node(1), now, 2 * SECOND), seen(node(2), now, START)]);
        assert_eq!(judge.heard(at, Instant::now()).live(Role::Storage).contains(&node(2)), counts, "{there}");
        assert_eq!(judge.view.members.len(), 2, "its registrations count from the start");
    }
    // and it itself holds off for as long
    let mut joiner = Judge::new(Instant::now());
    for (request, there, hold_off) in [(1, 0, true), (2, 1_999_999, true), (3, 2_000_000, false)] {
        let now = START + there;
        let before_us = if there == 0 { 0 } else { now - SECOND / 2 };
        let at = Answer { before_us, ..answer(request, now, vec![seen(node(1), now, 2 * SECOND), seen(node(2), now, START)]) };
        assert_eq!(joiner.heard(at, Instant::now()).hold_off, hold_off);
    }
}

#[test]
fn after_an_outage_the_first_to_come_back_takes_nothing() {
    let mut judge = calm(&[node(1), node(2), node(3)]);
    let began = Instant::now();
    assert_eq!(judge.missed(began).unreachable_since, None, "one miss is none");
    assert!(judge.missed(began + Duration::from_secs(5)).unreachable_since.is_some());
    assert_eq!(judge.view.live(Role::Storage).len(), 3, "the view is frozen");
    assert!(!judge.view.may_acquire());
    assert_eq!(judge.heard_us(), 0);
    let now = START + 15 * SECOND;
    let others = || vec![seen(node(2), START, 2 * SECOND), seen(node(3), START, 2 * SECOND)];
    let mut all = others();
    all.push(seen(node(1), now, 2 * SECOND));
    let view = judge.heard(Answer { before_us: START, ..answer(101, now, all) }, Instant::now());
    assert!(view.hold_off && view.unreachable_since.is_none());
    assert_eq!(view.live(Role::Storage).len(), 3, "the others may only not have come back yet");
    assert!(view.dead.is_empty());
    let now = now + 2 * SECOND;
    let all = vec![seen(node(1), now, 2 * SECOND), seen(node(2), now, 2 * SECOND), seen(node(3), START, 2 * SECOND)];
    let view = judge.heard(answer(102, now, all), Instant::now());
    assert!(view.may_acquire());
    assert_eq!(view.live(Role::Storage), [node(1), node(2)]);
}

#[test]
fn a_store_set_back_keeps_who_was_there() {
    let mut judge = calm(&[node(1), node(2)]);
    // an old copy: the other is not in it, this process's renewals are lost, and the script says that the store is born now
    let now = START + SECOND;
    let at = Answer { born_us: now, before_us: 0, ..answer(101, now, vec![seen(node(1), now, now)]) };
    let view = judge.heard(at, Instant::now());
    assert!(view.hold_off && !view.settled);
    assert_eq!(view.live(Role::Router), [node(1), node(2)]);
}

#[test]
fn a_clock_that_goes_back_holds_off_and_an_old_reply_is_ignored() {
    let mut judge = calm(&[node(1), node(2)]);
    let old = answer(3, START + 100 * SECOND, vec![]);
    assert_eq!(judge.heard(old, Instant::now()).live(Role::Router).len(), 2, "an old request's answer");
    let now = START - 100 * SECOND;
    let view = judge.heard(answer(101, now, vec![seen(node(1), now, now)]), Instant::now());
    assert!(view.hold_off);
    assert_eq!(view.live(Role::Router).len(), 2);
}

#[test]
fn a_later_boot_ends_the_earlier_once_that_is_silent() {
    let (old, new) = (NodeId { node: 1, boot: 9 }, NodeId { node: 1, boot: 4 });
    let mut judge = calm(&[old, node(2)]);
    let at = |silent: u64| {
        let now = START + silent;
        vec![seen(old, START, 2 * SECOND), seen(new, now, START + SECOND / 2), seen(node(2), now, 2 * SECOND)]
    };
    let view = judge.heard(answer(101, START + SECOND, at(SECOND)), Instant::now());
    assert!(view.dead.is_empty(), "both live: a mistake of configuration is not made worse");
    let view = judge.heard(answer(102, START + 2 * SECOND, at(2 * SECOND)), Instant::now());
    assert_eq!(view.dead, [old]);
    let mut buried = answer(103, START + 2 * SECOND, at(2 * SECOND));
    buried.buried.push(node(2));
    assert_eq!(judge.heard(buried, Instant::now()).dead, [old, node(2)]);
}

#[test]
fn void_only_without_doubt() {
    let mut judge = calm(&[node(1), node(2)]);
    let (publisher, members) = Members::channel();
    let entry = |node, counter| Registration { node, counter };
    publisher.publish(judge.view.clone(), judge.heard_us());
    assert!(!members.is_void(entry(node(2), 1)), "it lives");
    assert!(members.is_void(entry(node(9), START - 11 * SECOND)), "never heard of, and had the time to appear");
    assert!(!members.is_void(entry(node(9), START - 9 * SECOND)), "it may have come this moment");
    let view = judge.missed(Instant::now() + Duration::from_secs(5)).clone();
    publisher.publish(view, judge.heard_us());
    assert!(!members.is_void(entry(node(9), 1)), "who hears nothing knows nothing");
    let now = START + 11 * SECOND;
    let mut at = answer(101, now, vec![seen(node(1), now, 2 * SECOND), seen(node(2), START, 2 * SECOND)]);
    at.before_us = now - SECOND / 2;
    let view = judge.heard(at, Instant::now()).clone();
    publisher.publish(view, judge.heard_us());
    assert!(members.is_void(entry(node(2), now)), "dead for sure, however young the entry");
    let flushed = Answer {
        born_us: now + SECOND,
        before_us: 0,
        ..answer(102, now + SECOND, vec![seen(node(1), now + SECOND, now + SECOND)])
    };
    let view = judge.heard(flushed, Instant::now()).clone();
    publisher.publish(view, judge.heard_us());
    assert!(!members.is_void(entry(node(9), 1)), "a young store knows nobody yet");
}

/// What happens to the store between two renewals of the process that is watched.
#[derive(Debug, Clone, Copy)]
enum Happens {
    Renewed,
    OtherSilent(u8),
    Away(u8),
    Flushed,
    ClockBack(u16),
    ClockAhead(u16),
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        6 => Just(Happens::Renewed),
        1 => (0_u8..3).prop_map(Happens::OtherSilent),
        1 => (1_u8..30).prop_map(Happens::Away),
        1 => Just(Happens::Flushed),
        1 => (1_u16..5000).prop_map(Happens::ClockBack),
        1 => (1_u16..5000).prop_map(Happens::ClockAhead),
    ]
}

/// The store as the script keeps it.
struct Store {
    now: u64,
    born: u64,
    entries: Vec<(NodeId, u64, u64)>,
}

impl Store {
    fn renew(&mut self, node: NodeId, known: u64, request: u64) -> Answer {
        let mut reset = self.born == 0 || self.born > self.now;
        for (_, seen, since) in &mut self.entries {
            reset |= *seen > self.now;
            *seen = (*seen).min(self.now);
            *since = (*since).min(self.now);
        }
        let now = self.now;
        self.entries.retain(|(other, seen, _)| *other == node || now - seen <= 60 * SECOND);
        let mine = self.entries.iter().find(|(other, ..)| *other == node).copied();
        let before = mine.map_or(0, |(_, seen, _)| seen);
        reset |= known > 0 && before < known && now.saturating_sub(known) < 60 * SECOND;
        reset |= before > 0 && now - before > 60 * SECOND;
        if reset {
            self.born = now;
        }
        self.entries.retain(|(other, ..)| *other != node);
        self.entries.push((node, now, mine.map_or(now, |(.., since)| since)));
        let members = self.entries.iter().map(|(node, at, since)| seen(*node, *at, *since)).collect();
        Answer { request, now_us: now, born_us: self.born, before_us: before, members, buried: Vec::new() }
    }
}

proptest! {
    /// Three members, two of which always live: whatever happens to the store, the watched one never may take over while it doesn't see
    /// the other that lives.
    #[test]
    fn who_may_acquire_sees_everybody_who_lives(story in proptest::collection::vec(happens(), 1..80)) {
        let mut store = Store { now: START, born: 0, entries: Vec::new() };
        let (me, alive) = (node(1), node(2));
        let mut known = [0_u64; 4];
        let mut judge = Judge::new(Instant::now());
        let mut request = 0;
        for step in story {
            let mut silent = BTreeSet::new();
            match step {
                Happens::Renewed => store.now += SECOND / 2,
                Happens::OtherSilent(steps) => {
                    store.now += SECOND / 2 * u64::from(steps);
                    silent.insert(3);
                }
                Happens::Away(steps) => {
                    store.now += SECOND / 2 * u64::from(steps);
                    judge.missed(Instant::now() + Duration::from_secs(2));
                    prop_assert!(!judge.view.may_acquire());
                }
                Happens::Flushed => { store.entries.clear(); store.born = 0; }
                Happens::ClockBack(seconds) => store.now = store.now.saturating_sub(u64::from(seconds) * SECOND).max(SECOND),
                Happens::ClockAhead(seconds) => store.now += u64::from(seconds) * SECOND,
            }
            // the watched one comes first: the hardest order
            for number in [1, 2, 3] {
                if silent.contains(&number) { continue; }
                request += 1;
                let at = store.renew(node(number), known[usize::from(number)], request);
                known[usize::from(number)] = at.now_us;
                if number == 1 {
                    let view = judge.heard(at, Instant::now());
                    if view.may_acquire() {
                        let live = view.live(Role::Storage);
                        prop_assert!(live.contains(&me) && live.contains(&alive), "{:?} after {:?}", live, step);
                    }
                }
                store.now += SECOND / 20;
            }
        }
    }
}

/// What a member says, from the text of its entry.
fn says(text: &str) -> Option<Reach> {
    Some(serde_json::from_str(text).unwrap())
}

#[test]
fn who_does_not_reach_a_part_has_no_share_in_what_needs_it() {
    let mut judge = calm(&[node(1), node(2)]);
    let mut at = |request, after_us, one: Option<Reach>, two: Option<Reach>| {
        let now = START + after_us;
        let (mut first, mut second) = (seen(node(1), now, 2 * SECOND), seen(node(2), now, 2 * SECOND));
        (first.member.reach, second.member.reach) = (one, two);
        judge.heard(answer(request, now, vec![first, second]), Instant::now()).clone()
    };
    let good = || says(r#"{"log":{"here":1000000},"a":{"here":1000000},"b":{"here":1000000}}"#);
    // of node 2, "a" is away since START
    let cut_off = || says(r#"{"log":{"here":1000000},"a":{"away":1000000000},"b":{"here":1000000}}"#);
    let both = [node(1), node(2)];
    assert_eq!(at(101, 5_900_000, good(), cut_off()).able(Role::Storage, &["log", "a"]), both, "not yet");
    let view = at(102, 6_000_000, good(), cut_off());
    assert_eq!(view.able(Role::Storage, &["log", "a"]), [node(1)]);
    assert_eq!(view.able(Role::Storage, &["log", "b"]), both, "other shards stay");
    assert_eq!((view.able(Role::Router, &["log"]), view.live(Role::Storage)), (both.to_vec(), both.to_vec()));
    assert_eq!(at(103, 6_500_000, cut_off(), cut_off()).able(Role::Storage, &["log", "a"]), both, "it is away for all");
    let back_just_now = says(r#"{"log":{"here":1000000},"a":{"here":1006000000},"b":{"here":1000000}}"#);
    assert_eq!(
        at(104, 7_000_000, back_just_now, cut_off()).able(Role::Storage, &["log", "a"]),
        both,
        "who is back first does not get everything"
    );
    assert_eq!(at(105, 7_500_000, good(), None).able(Role::Storage, &["log", "a"]), both);
    assert_eq!(at(106, 8_000_000, None, cut_off()).able(Role::Storage, &["log", "a"]), both, "an older build would not take it");
}
