//! Properties of sequencing: whatever comes, however often and in whatever batches, a mailbox is dense, a message is in it once, the first copy
//! decides, and nobody's repeat costs anybody else the message.

use std::collections::{BTreeMap, HashMap, HashSet};

use proptest::prelude::*;
use protocol::record::{Content, EventBody, Identity, Record, Refusal, Verdict};
use protocol::{ConversationId, ErrorCode, MessageId, Position, UserId};

use super::{Arrival, Placed, Plan, keys_of, owners_of, plan, refusal_keys_of};
use crate::store::{Head, KeyOf, KeyRow, Row};

fn user(number: u64) -> UserId {
    UserId::from_stored(number)
}

/// One copy of a message: whose, which id, which body, which of its owners live in this shard.
#[derive(Debug, Clone)]
struct Copy {
    sender: u64,
    other: u64,
    id: u8,
    body: u8,
    here: (bool, bool),
}

impl Copy {
    fn record(&self) -> Record {
        let conversation = ConversationId::direct(user(self.sender), user(self.other));
        let identity = Identity { sender: user(self.sender), conversation, id: MessageId::from_stored(&[self.id; 16]).unwrap() };
        Record { identity, content: Content::Text(format!("body {}", self.body)), reply_to: None, at_ms: 0 }
    }

    fn arrival(&self, offset: u64) -> Option<Arrival> {
        let mut owners = Vec::new();
        owners.extend(self.here.0.then(|| user(self.sender)));
        owners.extend(self.here.1.then(|| user(self.other)));
        owners.sort_unstable();
        owners.dedup();
        (!owners.is_empty()).then(|| Arrival::new(Position::new(1, offset), Verdict::Deliver(self.record(), owners)))
    }
}

/// Which owners live here is a matter of the users, not of the copy.
fn copies() -> impl Strategy<Value = Vec<Copy>> {
    let copy = (1..5_u64, 1..5_u64, 0..6_u8, prop_oneof![5 => Just(0_u8), 1 => 1..3_u8]);
    (proptest::collection::vec(copy, 0..60), any::<[bool; 5]>()).prop_map(|(copies, here)| {
        let lives = |user: u64| here[user as usize];
        let copy = |(sender, other, id, body)| Copy { sender, other, id, body, here: (lives(sender), lives(other)) };
        copies.into_iter().map(copy).collect()
    })
}

/// What a store holds of it.
#[derive(Default)]
struct Shard {
    keys: HashMap<KeyOf, KeyRow>,
    rows: Vec<Row>,
    placed: Vec<Placed>,
}

impl Shard {
    /// One batch, as an owner does it: only the asked-for keys and heads are known.
    fn take(&mut self, arrivals: Vec<Arrival>) {
        let stored =
            |keys: Vec<KeyOf>| keys.into_iter().filter_map(|key| self.keys.get(&key).map(|row| (key, *row))).collect::<Vec<_>>();
        let mut known: HashMap<_, _> = stored(keys_of(&arrivals)).into_iter().collect();
        let refusals = stored(refusal_keys_of(&arrivals, &known));
        known.extend(refusals);
        let head = |owner: UserId| Head { head: self.rows.iter().filter(|row| row.owner == owner).count() as u64, floor: 0 };
        let mut heads = owners_of(&arrivals).into_iter().map(|owner| (owner, head(owner))).collect();
        let Plan { rows, keys, placed } = plan(arrivals, &mut known, &mut heads);
        for (key, row) in keys {
            assert!(self.keys.insert(key, row).is_none(), "a key that is there would fail the commit: {key:?}");
        }
        self.rows.extend(rows);
        self.placed.extend(placed);
    }

    fn mailboxes(&self) -> BTreeMap<UserId, Vec<&Row>> {
        let mut mailboxes = BTreeMap::<_, Vec<_>>::new();
        for row in &self.rows {
            mailboxes.entry(row.owner).or_default().push(row);
        }
        mailboxes
    }
}

fn arrivals(copies: &[Copy]) -> Vec<Arrival> {
    copies.iter().zip(0..).filter_map(|(copy, offset)| copy.arrival(offset)).collect()
}

fn in_batches(arrivals: Vec<Arrival>, sizes: &[usize]) -> Shard {
    let (mut shard, mut arrivals) = (Shard::default(), arrivals.into_iter());
    for size in sizes.iter().chain(std::iter::repeat(&7)) {
        let batch: Vec<_> = arrivals.by_ref().take(*size).collect();
        if batch.is_empty() {
            return shard;
        }
        shard.take(batch);
    }
    shard
}

proptest! {
    #[test]
    fn mailboxes_are_dense_and_hold_each_message_once(copies in copies(), sizes in proptest::collection::vec(1..9_usize, 0..20)) {
        let shard = in_batches(arrivals(&copies), &sizes);
        for (owner, rows) in shard.mailboxes() {
            let mut seen = HashSet::new();
            for (row, seq) in rows.iter().zip(1..) {
                prop_assert_eq!(row.event.seq, seq);
                let what = match &row.event.body {
                    EventBody::Message(message) => (message.record.identity, None),
                    EventBody::Refused(refusal) => {
                        prop_assert_eq!(refusal.identity.sender, owner, "only a sender hears of a refusal");
                        prop_assert_eq!(refusal.code, ErrorCode::IdReused);
                        (refusal.identity, Some(refusal.body_hash.0))
                    }
                };
                prop_assert!(seen.insert(what), "{:?} twice in the mailbox of {}", what, owner);
            }
        }
    }

    /// The first copy decides: every owner here has it, at its position, with its body; and every other body is refused to its sender.
    #[test]
    fn the_first_copy_decides_and_nobody_loses_it(copies in copies(), sizes in proptest::collection::vec(1..9_usize, 0..20)) {
        let shard = in_batches(arrivals(&copies), &sizes);
        let mailboxes = shard.mailboxes();
        let mut first: BTreeMap<Identity, Record> = BTreeMap::new();
        for (copy, offset) in copies.iter().zip(0..) {
            let record = copy.record();
            let Some(arrival) = copy.arrival(offset) else { continue };
            let Verdict::Deliver(_, owners) = &arrival.verdict else { panic!("made so") };
            let is_first = !first.contains_key(&record.identity);
            let decided = first.entry(record.identity).or_insert_with(|| record.clone()).clone();
            for owner in owners {
                let here = mailboxes.get(owner).into_iter().flatten().any(|row| match &row.event.body {
                    EventBody::Message(message) => message.record == decided && (!is_first || message.position == arrival.position),
                    EventBody::Refused(_) => false,
                });
                prop_assert!(here, "{} has lost {:?}", owner, record.identity);
            }
            if record.content != decided.content && owners.contains(&record.identity.sender) {
                let told = mailboxes[&record.identity.sender].iter().any(|row| match &row.event.body {
                    EventBody::Refused(refusal) => refusal.body_hash == record.body_hash(),
                    EventBody::Message(_) => false,
                });
                prop_assert!(told, "the sender was not told of a second body");
            }
        }
    }

    /// How the log is cut into batches changes nothing.
    #[test]
    fn batches_do_not_matter(copies in copies(), sizes in proptest::collection::vec(1..9_usize, 0..20)) {
        let (one, many) = (in_batches(arrivals(&copies), &[usize::MAX]), in_batches(arrivals(&copies), &sizes));
        prop_assert_eq!(one.rows, many.rows);
        prop_assert_eq!(one.placed, many.placed);
        prop_assert_eq!(one.keys, many.keys);
    }

    /// Taking everything again changes nothing.
    #[test]
    fn a_replay_adds_nothing(copies in copies()) {
        let mut shard = in_batches(arrivals(&copies), &[]);
        let (rows, keys) = (shard.rows.clone(), shard.keys.clone());
        shard.take(arrivals(&copies));
        prop_assert_eq!(shard.rows, rows);
        prop_assert_eq!(shard.keys, keys);
    }
}

#[test]
fn a_repeat_for_one_owner_is_new_for_the_other() {
    let copy = |here| Copy { sender: 1, other: 2, id: 9, body: 0, here };
    let mut shard = Shard::default();
    shard.take(vec![copy((true, false)).arrival(3).unwrap()]);
    shard.take(vec![copy((true, true)).arrival(5).unwrap()]);
    assert_eq!(shard.placed, [Placed::New, Placed::New]);
    assert_eq!(shard.rows.iter().map(|row| (row.owner.get(), row.event.seq)).collect::<Vec<_>>(), [(1, 1), (2, 1)]);
}

#[test]
fn a_refusal_by_the_router_is_told_once_under_the_key_of_the_message() {
    let record = Copy { sender: 1, other: 2, id: 9, body: 0, here: (true, true) }.record();
    let refusal = |offset| Refusal {
        identity: record.identity,
        position: Position::new(1, offset),
        body_hash: record.body_hash(),
        code: ErrorCode::Forbidden,
        at_ms: 0,
    };
    let arrival = |offset| Arrival::new(Position::new(1, offset), Verdict::Refuse(refusal(offset)));
    let mut shard = Shard::default();
    shard.take(vec![arrival(1), arrival(2)]);
    shard.take(vec![arrival(4), Arrival::new(Position::new(1, 5), Verdict::Deliver(record.clone(), vec![user(1)]))]);
    assert_eq!(shard.rows.len(), 1, "refused once stays refused");
    assert_eq!(shard.placed, [Placed::New, Placed::Repeat, Placed::Repeat, Placed::Repeat]);
}
