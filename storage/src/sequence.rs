//! The next seq for each mailbox, and what is a repeat: pure. The first copy decides for everybody: body, position, audience.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use protocol::plant::{Bug, planted};
use protocol::record::{BodyHash, Event, EventBody, Identity, Message, Refusal, Verdict};
use protocol::{ErrorCode, Position, Seq, UserId};

use crate::store::{Head, KeyOf, KeyRow, Row};

/// A verdict on its way into the mailboxes of one shard.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// Its place in the conversation.
    pub position: Position,
    /// What to do.
    pub verdict: Verdict,
    /// Fingerprint of its body.
    pub body_hash: BodyHash,
}

impl Arrival {
    /// A verdict at its position.
    pub fn new(position: Position, verdict: Verdict) -> Self {
        let body_hash = match &verdict {
            Verdict::Deliver(record, _) => record.body_hash(),
            Verdict::Refuse(refusal) => refusal.body_hash,
        };
        Self { position, verdict, body_hash }
    }

    fn identity(&self) -> Identity {
        match &self.verdict {
            Verdict::Deliver(record, _) => record.identity,
            Verdict::Refuse(refusal) => refusal.identity,
        }
    }

    fn owners(&self) -> &[UserId] {
        match &self.verdict {
            Verdict::Deliver(_, owners) => owners,
            Verdict::Refuse(refusal) => std::slice::from_ref(&refusal.identity.sender),
        }
    }

    fn key(&self, owner: UserId) -> KeyOf {
        KeyOf { owner, identity: self.identity(), refused: None }
    }

    fn refusal_key(&self) -> KeyOf {
        KeyOf { owner: self.identity().sender, identity: self.identity(), refused: Some(self.body_hash.0) }
    }
}

/// What became of an arrival in this shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placed {
    /// New in at least one mailbox.
    New,
    /// Everywhere known already: the same message again.
    Repeat,
    /// The id was used for another body: its sender gets a refusal, once for each body.
    Reused,
}

/// What to write for a batch, and what became of each arrival, in order.
#[derive(Debug, Default)]
pub struct Plan {
    /// New events.
    pub rows: Vec<Row>,
    /// New keys.
    pub keys: Vec<(KeyOf, KeyRow)>,
    /// One for each arrival.
    pub placed: Vec<Placed>,
}

/// Keys that must be known before [`plan`]: one for each owner of each arrival, each once.
pub fn keys_of(arrivals: &[Arrival]) -> Vec<KeyOf> {
    let mut keys: Vec<_> = arrivals.iter().flat_map(|arrival| arrival.owners().iter().map(|owner| arrival.key(*owner))).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// Refusal keys that must be known too: only where an id comes with a second body, so usually none.
pub fn refusal_keys_of(arrivals: &[Arrival], known: &HashMap<KeyOf, KeyRow>) -> Vec<KeyOf> {
    let mut first: HashMap<KeyOf, BodyHash> = HashMap::new();
    let mut keys = Vec::new();
    for arrival in arrivals {
        let key = arrival.key(arrival.identity().sender);
        let body = match known.get(&key) {
            Some(row) => row.body_hash,
            None => *first.entry(key).or_insert(arrival.body_hash),
        };
        if body != arrival.body_hash {
            keys.push(arrival.refusal_key());
        }
    }
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// Mailboxes whose heads must be known: each owner once.
pub fn owners_of(arrivals: &[Arrival]) -> Vec<UserId> {
    let mut owners: Vec<_> = arrivals.iter().flat_map(|arrival| arrival.owners().iter().copied()).collect();
    owners.sort_unstable();
    owners.dedup();
    owners
}

/// Sequences a batch. `known` holds every stored row of [`keys_of`] and [`refusal_keys_of`]; `heads` every owner's head. Both take in what
/// the plan adds, so that they serve as the view after the commit.
pub fn plan(arrivals: Vec<Arrival>, known: &mut HashMap<KeyOf, KeyRow>, heads: &mut HashMap<UserId, Head>) -> Plan {
    let mut plan = Plan::default();
    for arrival in arrivals {
        let placed = place(arrival, &mut plan, known, heads);
        plan.placed.push(placed);
    }
    plan
}

fn place(arrival: Arrival, plan: &mut Plan, known: &mut HashMap<KeyOf, KeyRow>, heads: &mut HashMap<UserId, Head>) -> Placed {
    let identity = arrival.identity();
    let first = known.get(&arrival.key(identity.sender)).copied();
    let reused = first.is_some_and(|first| first.body_hash != arrival.body_hash);
    if planted(Bug::ConflictDropsForAll) && arrival.owners().iter().any(|owner| known.contains_key(&arrival.key(*owner))) {
        return Placed::Repeat;
    }
    if reused && arrival.owners().contains(&identity.sender) {
        refuse_reuse(&arrival, plan, known, heads);
    }
    if reused {
        return Placed::Reused;
    }
    let (position, body_hash, owners) = (arrival.position, arrival.body_hash, arrival.owners().to_vec());
    let fresh: Vec<_> = owners.into_iter().filter(|owner| !known.contains_key(&arrival.key(*owner))).collect();
    let placed = if fresh.is_empty() { Placed::Repeat } else { Placed::New };
    let body = match arrival.verdict {
        Verdict::Deliver(record, _) => EventBody::Message(Arc::new(Message::new(record, position))),
        Verdict::Refuse(refusal) => EventBody::Refused(Arc::new(refusal)),
    };
    for owner in fresh {
        let key = KeyOf { owner, identity, refused: None };
        append(plan, known, heads, (key, body_hash, body.clone()));
    }
    placed
}

/// The refusal of a second body, in its sender's own mailbox, once for each body.
fn refuse_reuse(arrival: &Arrival, plan: &mut Plan, known: &mut HashMap<KeyOf, KeyRow>, heads: &mut HashMap<UserId, Head>) {
    let key = arrival.refusal_key();
    if known.contains_key(&key) {
        return;
    }
    let at_ms = match &arrival.verdict {
        Verdict::Deliver(record, _) => record.at_ms,
        Verdict::Refuse(refusal) => refusal.at_ms,
    };
    let refusal = Refusal {
        identity: arrival.identity(),
        position: arrival.position,
        body_hash: arrival.body_hash,
        code: ErrorCode::IdReused,
        at_ms,
    };
    append(plan, known, heads, (key, arrival.body_hash, EventBody::Refused(Arc::new(refusal))));
}

/// One event at the end of one mailbox, with its key.
fn append(
    plan: &mut Plan,
    known: &mut HashMap<KeyOf, KeyRow>,
    heads: &mut HashMap<UserId, Head>,
    (key, body_hash, body): (KeyOf, BodyHash, EventBody),
) {
    let head = match heads.entry(key.owner) {
        Entry::Occupied(entry) => entry.into_mut(),
        Entry::Vacant(entry) => entry.insert(Head::default()),
    };
    head.head += 1;
    let seq: Seq = head.head;
    let row = KeyRow { seq: Some(seq), body_hash, position: body.position() };
    known.insert(key, row);
    plan.keys.push((key, row));
    plan.rows.push(Row { owner: key.owner, event: Event { seq, body } });
}

#[cfg(test)]
mod tests;
