//! Who gets a record: pure, a function of the record (and, for groups to come, of membership at its position).

use protocol::record::{Record, Verdict};
use protocol::{ConversationId, UserId};
use smallvec::{SmallVec, smallvec};

/// A virtual shard: `user_id % V`. One log partition, one owner task, one checkpoint row, the unit that moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u16);

/// How many virtual shards there are: fixed when a cluster is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shards(u16);

impl Shards {
    /// All mailboxes in one shard: the embedded server.
    pub const ONE: Self = Self(1);

    /// `count` shards, at least 1.
    pub const fn new(count: u16) -> Option<Self> {
        if count == 0 { None } else { Some(Self(count)) }
    }

    /// Their number.
    pub const fn count(self) -> u16 {
        self.0
    }

    /// The shard of a user's mailbox.
    pub const fn of(self, user: UserId) -> ShardId {
        // the remainder is below a u16
        ShardId((user.get() % self.0 as u64) as u16)
    }
}

/// Owners of the mailboxes a conversation's messages go to, ascending, each once.
pub fn owners(conversation: ConversationId) -> SmallVec<[UserId; 2]> {
    match conversation {
        ConversationId::Direct(low, high) if low == high => smallvec![low],
        ConversationId::Direct(low, high) => smallvec![low, high],
    }
}

/// One verdict for each virtual shard that gets the record, ascending by shard.
pub fn expand(record: &Record, shards: Shards) -> SmallVec<[(ShardId, Verdict); 2]> {
    let mut by_shard: SmallVec<[(ShardId, Vec<UserId>); 2]> = SmallVec::new();
    for owner in owners(record.identity.conversation) {
        let shard = shards.of(owner);
        match by_shard.iter_mut().find(|(known, _)| *known == shard) {
            Some((_, list)) => list.push(owner),
            None => by_shard.push((shard, vec![owner])),
        }
    }
    by_shard.sort_by_key(|(shard, _)| *shard);
    by_shard.into_iter().map(|(shard, owners)| (shard, Verdict::Deliver(record.clone(), owners))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use protocol::MessageId;
    use protocol::record::{Content, Identity};

    fn record(one: u64, other: u64) -> Record {
        let (one, other) = (UserId::from_stored(one), UserId::from_stored(other));
        let id = MessageId::from_stored(&[7; 16]).unwrap();
        let identity = Identity { sender: one, conversation: ConversationId::direct(one, other), id };
        Record { identity, content: Content::Text("x".into()), reply_to: None, at_ms: 0 }
    }

    proptest! {
        #[test]
        fn everybody_gets_it_once_in_the_own_shard(one in 1..1_000_000_u64, other in 1..1_000_000_u64, count in 1..300_u16) {
            let shards = Shards::new(count).unwrap();
            let expanded = expand(&record(one, other), shards);
            prop_assert!(expanded.windows(2).all(|pair| pair[0].0 < pair[1].0));
            let mut got = Vec::new();
            for (shard, verdict) in &expanded {
                let Verdict::Deliver(_, owners) = verdict else { panic!("a direct message is never refused by the router") };
                prop_assert!(owners.iter().all(|owner| shards.of(*owner) == *shard));
                prop_assert!(owners.is_sorted());
                got.extend(owners.iter().map(|owner| owner.get()));
            }
            got.sort_unstable();
            let mut want = vec![one, other];
            want.sort_unstable();
            want.dedup();
            prop_assert_eq!(got, want);
        }
    }
}
