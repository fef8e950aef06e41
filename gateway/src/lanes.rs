//! Order of sends: pure. One lane for each (connection, conversation); one attempt under way in each, the others wait. A retryable refusal
//! fences its lane until the same id comes again, so that no later message overtakes it. All of it dies with the connection.

use std::collections::{HashMap, VecDeque};

use protocol::plant::{Bug, planted};
use protocol::record::{BodyHash, Record};
use protocol::{ConversationId, ErrorCode, MessageId};
use router::submit::Outcome;

/// Lanes that may be fenced or busy at once.
const LANES_MAX: usize = 256;

/// What to do with a send.
#[derive(Debug, PartialEq, Eq)]
pub enum Offer {
    /// Submit it under this ticket.
    Submit(u64, Record),
    /// It waits for the one before it, or joins the attempt of the same id.
    Waits,
    /// It is not taken.
    Refuse(ErrorCode),
    /// This connection fences more lanes than an honest client can have.
    TooManyLanes,
}

/// An answer to a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Which send.
    pub id: MessageId,
    /// Where to.
    pub conversation: ConversationId,
    /// What became of it.
    pub outcome: Outcome,
}

/// A report worked in: what to answer, what to submit next.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Answers in order.
    pub answers: Vec<Answer>,
    /// The next of that lane.
    pub next: Option<(u64, Record)>,
}

#[derive(Debug)]
struct UnderWay {
    ticket: u64,
    id: MessageId,
    body: BodyHash,
    /// Copies of it that came meanwhile, each to be answered too.
    joined: u32,
    since_tick: u32,
    told_unknown: bool,
}

impl UnderWay {
    fn new(ticket: u64, record: &Record, tick: u32) -> Self {
        Self { ticket, id: record.identity.id, body: record.body_hash(), joined: 0, since_tick: tick, told_unknown: false }
    }
}

#[derive(Debug, Default)]
struct Lane {
    under_way: Option<UnderWay>,
    waiting: VecDeque<Record>,
    fenced_at: Option<MessageId>,
}

/// The sends of one connection that have no answer yet.
#[derive(Debug, Default)]
pub struct Lanes {
    lanes: HashMap<ConversationId, Lane>,
    in_flight: u32,
    last_ticket: u64,
}

impl Lanes {
    /// Sends without an answer.
    pub const fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Whether nothing is remembered, so that this can be dropped.
    pub fn is_idle(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Whether the fence of this conversation stops this id.
    pub fn fence_stops(&self, conversation: ConversationId, id: MessageId) -> bool {
        self.lanes.get(&conversation).and_then(|lane| lane.fenced_at).is_some_and(|fence| fence != id)
    }

    /// A send was refused at the door, to be tried again: what comes behind it must wait for it. False: too many lanes.
    pub fn fence(&mut self, conversation: ConversationId, id: MessageId) -> bool {
        if self.is_full(conversation) {
            return false;
        }
        let lane = self.lanes.entry(conversation).or_default();
        lane.fenced_at.get_or_insert(id);
        true
    }

    fn is_full(&self, conversation: ConversationId) -> bool {
        self.lanes.len() >= LANES_MAX && !self.lanes.contains_key(&conversation)
    }

    /// A send that passed all checks.
    pub fn offer(&mut self, record: Record, in_flight_max: u32, tick: u32) -> Offer {
        let (conversation, id) = (record.identity.conversation, record.identity.id);
        if self.fence_stops(conversation, id) {
            return Offer::Refuse(ErrorCode::Fenced);
        }
        if self.is_full(conversation) {
            return Offer::TooManyLanes;
        }
        if self.in_flight >= in_flight_max {
            return if self.fence(conversation, id) { Offer::Refuse(ErrorCode::Busy) } else { Offer::TooManyLanes };
        }
        let lane = self.lanes.entry(conversation).or_default();
        lane.fenced_at = None;
        self.in_flight += 1;
        match &mut lane.under_way {
            // only a true copy: another body under the same id goes its own way, to be refused there
            Some(first) if first.id == id && first.body == record.body_hash() => {
                first.joined += 1;
                Offer::Waits
            }
            Some(_) => {
                lane.waiting.push_back(record);
                Offer::Waits
            }
            None => {
                self.last_ticket += 1;
                lane.under_way = Some(UnderWay::new(self.last_ticket, &record, tick));
                Offer::Submit(self.last_ticket, record)
            }
        }
    }

    /// The report of an attempt.
    pub fn settled(&mut self, ticket: u64, outcome: Outcome, tick: u32) -> Settled {
        let found = self.lanes.iter().find(|(_, lane)| lane.under_way.as_ref().is_some_and(|first| first.ticket == ticket));
        let Some(conversation) = found.map(|(conversation, _)| *conversation) else { return Settled::default() };
        let Some(lane) = self.lanes.get_mut(&conversation) else { return Settled::default() };
        let Some(first) = lane.under_way.take() else { return Settled::default() };
        let mut settled = Settled::default();
        for _ in 0..=first.joined {
            settled.answers.push(Answer { id: first.id, conversation, outcome });
        }
        let again = match outcome {
            Outcome::Accepted => false,
            Outcome::Refused(code) => code.retryable(),
            Outcome::Unknown => true,
        };
        if again && !planted(Bug::LaneWithoutFence) {
            lane.fenced_at = Some(first.id);
            let refused = lane.waiting.drain(..);
            let fenced = Outcome::Refused(ErrorCode::Fenced);
            settled.answers.extend(refused.map(|record| Answer { id: record.identity.id, conversation, outcome: fenced }));
        } else if let Some(record) = lane.waiting.pop_front() {
            self.last_ticket += 1;
            lane.under_way = Some(UnderWay::new(self.last_ticket, &record, tick));
            settled.next = Some((self.last_ticket, record));
        }
        if lane.under_way.is_none() && lane.fenced_at.is_none() {
            self.lanes.remove(&conversation);
        }
        let answered = u32::try_from(settled.answers.len()).unwrap_or(u32::MAX);
        self.in_flight = self.in_flight.saturating_sub(answered);
        settled
    }

    /// Sends that have waited for their report since before `tick`, each told once. They stay under way: a late report still comes.
    pub fn overdue(&mut self, tick: u32) -> Vec<MessageId> {
        let late = self.lanes.values_mut().filter_map(|lane| lane.under_way.as_mut());
        let untold = late.filter(|first| first.since_tick < tick && !first.told_unknown);
        untold
            .map(|first| {
                first.told_unknown = true;
                first.id
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use protocol::UserId;
    use protocol::record::{Content, Identity};
    use std::collections::BTreeMap;

    fn record(other: u64, id: u8) -> Record {
        let user = |n| UserId::new(n).unwrap();
        let identity = Identity {
            sender: user(1),
            conversation: ConversationId::direct(user(1), user(other)),
            id: MessageId::from_stored(&[id; 16]).unwrap(),
        };
        Record { identity, content: Content::Text("x".into()), reply_to: None, at_ms: 0 }
    }

    const NO: Outcome = Outcome::Refused(ErrorCode::Unavailable);

    #[test]
    fn one_under_way_in_a_conversation_and_a_refusal_fences_it() {
        let mut lanes = Lanes::default();
        assert!(matches!(lanes.offer(record(2, 1), 32, 0), Offer::Submit(1, _)));
        assert_eq!(lanes.offer(record(2, 2), 32, 0), Offer::Waits);
        assert!(matches!(lanes.offer(record(3, 3), 32, 0), Offer::Submit(2, _)));
        let settled = lanes.settled(1, NO, 0);
        let codes: Vec<_> = settled.answers.iter().map(|answer| answer.outcome).collect();
        assert_eq!(codes, [NO, Outcome::Refused(ErrorCode::Fenced)]);
        assert_eq!(lanes.offer(record(2, 2), 32, 0), Offer::Refuse(ErrorCode::Fenced));
        assert!(matches!(lanes.offer(record(2, 1), 32, 0), Offer::Submit(3, _)));
        assert_eq!(lanes.settled(3, Outcome::Accepted, 0).answers.len(), 1);
        assert!(matches!(lanes.offer(record(2, 2), 32, 0), Offer::Submit(4, _)));
    }

    #[test]
    fn a_copy_joins_the_attempt_and_is_answered_with_it() {
        let mut lanes = Lanes::default();
        lanes.offer(record(2, 1), 32, 0);
        assert_eq!(lanes.offer(record(2, 1), 32, 0), Offer::Waits);
        assert_eq!(lanes.settled(1, Outcome::Accepted, 0).answers.len(), 2);
        assert!(lanes.is_idle());
        assert_eq!(lanes.in_flight(), 0);
    }

    #[test]
    fn another_body_under_the_same_id_does_not_join() {
        let other = Record { content: Content::Text("y".into()), ..record(2, 1) };
        for outcome in [Outcome::Accepted, NO] {
            let mut lanes = Lanes::default();
            lanes.offer(record(2, 1), 32, 0);
            assert_eq!(lanes.offer(other.clone(), 32, 0), Offer::Waits);
            let settled = lanes.settled(1, outcome, 0);
            assert_eq!(settled.next.is_some(), outcome == Outcome::Accepted, "it is tried by itself, behind the first");
            let reused = Outcome::Refused(ErrorCode::IdReused);
            let next = settled.next.map_or(Vec::new(), |(ticket, _)| lanes.settled(ticket, reused, 0).answers);
            assert_eq!(settled.answers.len() + next.len(), 2, "both are answered");
            assert_eq!(lanes.in_flight(), 0);
        }
    }

    #[test]
    fn an_overdue_send_is_told_once_and_still_settles() {
        let mut lanes = Lanes::default();
        lanes.offer(record(2, 1), 32, 7);
        assert!(lanes.overdue(7).is_empty());
        assert_eq!(lanes.overdue(8).len(), 1);
        assert!(lanes.overdue(9).is_empty());
        assert_eq!(lanes.settled(1, Outcome::Accepted, 9).answers.len(), 1);
    }

    proptest! {
        /// A client that resends from the oldest unanswered one, a server that refuses at random: first copies are accepted in order, every
        /// offer is answered exactly once, nothing stays behind.
        #[test]
        fn accepted_in_the_order_of_sending(outcomes in proptest::collection::vec(0..4_u8, 0..200), conversations in 1..4_u64) {
            let mut lanes = Lanes::default();
            let mut accepted: BTreeMap<ConversationId, Vec<u8>> = BTreeMap::new();
            let mut unsent: Vec<_> = (0..30_u8).map(|id| record(2 + u64::from(id) % conversations, id)).collect();
            let mut under_way: Vec<(u64, Record)> = Vec::new();
            let mut owed: BTreeMap<MessageId, Record> = BTreeMap::new();
            let mut outcomes = outcomes.into_iter();
            while !(unsent.is_empty() && under_way.is_empty()) {
                let mut refused = Vec::new();
                for record in unsent.drain(..) {
                    owed.insert(record.identity.id, record.clone());
                    match lanes.offer(record.clone(), 8, 0) {
                        Offer::Submit(ticket, record) => under_way.push((ticket, record)),
                        Offer::Waits => {}
                        Offer::Refuse(_) => refused.push(owed.remove(&record.identity.id).unwrap()),
                        Offer::TooManyLanes => panic!("three lanes are not too many"),
                    }
                }
                if !under_way.is_empty() {
                    let (ticket, record) = under_way.remove(0);
                    let outcome = match outcomes.next() { Some(0) => NO, Some(1) => Outcome::Unknown, _ => Outcome::Accepted };
                    if outcome == Outcome::Accepted {
                        accepted.entry(record.identity.conversation).or_default().push(record.identity.id.bytes()[0]);
                    }
                    let settled = lanes.settled(ticket, outcome, 0);
                    for answer in settled.answers {
                        let record = owed.remove(&answer.id).expect("answered once");
                        if answer.outcome != Outcome::Accepted { refused.push(record) }
                    }
                    under_way.extend(settled.next);
                }
                refused.sort_by_key(|record| record.identity.id);
                unsent = refused;
            }
            for list in accepted.values() { prop_assert!(list.is_sorted(), "{:?}", list) }
            prop_assert_eq!(accepted.values().map(Vec::len).sum::<usize>(), 30);
            prop_assert_eq!(lanes.in_flight(), 0);
            prop_assert!(lanes.is_idle());
        }
    }
}
