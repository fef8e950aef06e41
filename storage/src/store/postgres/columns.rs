//! The columns of commits, as the database's function takes them: pure. Those of one commit are made by its owner and looked through there; those
//! of several are put one behind another.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use protocol::record::{EventBody, Link};
use protocol::{ConversationId, UserId};
use router::expand::ShardId;

use super::base::PgQuery;
use super::rows::{bits, bound, signed};
use crate::store::{Commit, HighWater, KeyOf, KeyRow, Row, StoreError};

const COMMIT: &str = "SELECT commit_shards($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, \
     $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37, $38, $39, $40, $41)";

/// Rows with columns: names and types once for the struct and for putting two behind each other.
macro_rules! columns {
    ($(#[$doc:meta])* $name:ident { $($(#[$column_doc:meta])* $column:ident: $kind:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        struct $name { $($(#[$column_doc])* $column: Vec<$kind>,)* }

        impl $name {
            fn append(&mut self, mut other: Self) {
                $(self.$column.append(&mut other.$column);)*
            }
        }
    };
}

type ConversationKey = [u8; ConversationId::KEY_LEN];

columns! {
    /// The compare-and-set of each shard.
    Places {
        shard: i32,
        owner_epoch: i64,
        expected: i64,
        next_offset: i64,
        fingerprint: i64,
    }
}

columns! {
    Keys {
        shard: i32,
        owner: i64,
        sender: i64,
        seq: Option<i64>,
        position: i64,
        id: [u8; 16],
        conversation: ConversationKey,
        refused: Vec<u8>,
        hash: [u8; 16],
    }
}

columns! {
    Messages {
        shard: i32,
        refs: i32,
        position: i64,
        conversation: ConversationKey,
        record: Vec<u8>,
    }
}

columns! {
    Mailbox {
        shard: i32,
        owner: i64,
        seq: i64,
        position: i64,
        at_ms: i64,
        conversation: ConversationKey,
        refusal: Option<Vec<u8>>,
    }
}

columns! {
    Heads {
        shard: i32,
        owner: i64,
        before: i64,
        after: i64,
        /// Of the first new event: the oldest, if the mailbox was empty.
        at_ms: i64,
    }
}

columns! {
    Conversations {
        shard: i32,
        owner: i64,
        seq: i64,
        position: i64,
        conversation: ConversationKey,
    }
}

columns! {
    Waters {
        shard: i32,
        partition: i32,
        epoch: i32,
        next_offset: i64,
        digest: i64,
    }
}

/// The columns of one commit, or of several to different shards.
#[derive(Debug, Default)]
pub(super) struct Batch {
    places: Places,
    keys: Keys,
    messages: Messages,
    mailbox: Mailbox,
    heads: Heads,
    conversations: Conversations,
    waters: Waters,
}

/// Where in the columns of one commit something already is.
#[derive(Debug, Default)]
struct Seen {
    messages: HashMap<(ConversationId, i64), usize>,
    heads: HashMap<UserId, usize>,
    conversations: HashMap<(UserId, ConversationId), usize>,
}

impl Batch {
    /// Fenced when the rows of a mailbox have a hole among themselves; the database looks at where they begin.
    pub(super) fn of(shard: ShardId, commit: &Commit) -> Result<Self, StoreError> {
        let (mut batch, mut seen) = (Self::default(), Seen::default());
        let number = i32::from(shard.0);
        batch.places.shard.push(number);
        batch.places.owner_epoch.push(signed(commit.expect.owner_epoch)?);
        batch.places.expected.push(signed(commit.expect.offset)?);
        batch.places.next_offset.push(signed(commit.next_offset)?);
        batch.places.fingerprint.push(bits(commit.fingerprint));
        for (key, row) in &commit.keys {
            batch.keys.push(number, key, row)?;
        }
        for row in &commit.rows {
            batch.push(shard, row, &mut seen)?;
        }
        for water in &commit.high_waters {
            batch.waters.push(number, water)?;
        }
        Ok(batch)
    }

    /// Commits of another shard behind these.
    pub(super) fn append(&mut self, other: Self) {
        self.places.append(other.places);
        self.keys.append(other.keys);
        self.messages.append(other.messages);
        self.mailbox.append(other.mailbox);
        self.heads.append(other.heads);
        self.conversations.append(other.conversations);
        self.waters.append(other.waters);
    }

    fn push(&mut self, shard: ShardId, row: &Row, seen: &mut Seen) -> Result<(), StoreError> {
        let (body, owner, number) = (&row.event.body, signed(row.owner.get())?, i32::from(shard.0));
        let (seq, position, conversation) = (signed(row.event.seq)?, signed(body.position().get())?, body.conversation());
        let (at_ms, refusal) = match body {
            EventBody::Message(message) => (message.record.at_ms, None),
            EventBody::Refused(refusal) => (refusal.at_ms, Some(refusal.encode().to_vec())),
        };
        self.heads.push(number, row.owner, (seq, bound(at_ms)), seen).ok_or(StoreError::Fenced(shard.0))?;
        let mailbox = &mut self.mailbox;
        mailbox.shard.push(number);
        mailbox.owner.push(owner);
        mailbox.seq.push(seq);
        mailbox.position.push(position);
        mailbox.at_ms.push(bound(at_ms));
        mailbox.conversation.push(conversation.key());
        mailbox.refusal.push(refusal);
        let EventBody::Message(message) = body else { return Ok(()) };
        match seen.messages.entry((conversation, position)) {
            Entry::Occupied(at) => self.messages.refs[*at.get()] += 1,
            Entry::Vacant(at) => {
                at.insert(self.messages.refs.len());
                self.messages.shard.push(number);
                self.messages.refs.push(1);
                self.messages.position.push(position);
                self.messages.conversation.push(conversation.key());
                self.messages.record.push(message.record.encode().to_vec());
            }
        }
        let conversations = &mut self.conversations;
        match seen.conversations.entry((row.owner, conversation)) {
            Entry::Occupied(at) => {
                conversations.seq[*at.get()] = seq;
                conversations.position[*at.get()] = position;
            }
            Entry::Vacant(at) => {
                at.insert(conversations.seq.len());
                conversations.shard.push(number);
                conversations.owner.push(owner);
                conversations.seq.push(seq);
                conversations.position.push(position);
                conversations.conversation.push(conversation.key());
            }
        }
        Ok(())
    }

    /// The call that does it.
    pub(super) fn query(self) -> PgQuery<'static> {
        let Self { places, keys, messages, mailbox, heads, conversations, waters } = self;
        let query = sqlx::query(COMMIT).bind(places.shard).bind(places.owner_epoch).bind(places.expected);
        let query = query.bind(places.next_offset).bind(places.fingerprint);
        let query = query.bind(keys.shard).bind(keys.owner).bind(keys.sender).bind(keys.seq).bind(keys.position);
        let query = query.bind(keys.id).bind(keys.conversation).bind(keys.refused).bind(keys.hash);
        let query = query.bind(messages.shard).bind(messages.refs).bind(messages.position);
        let query = query.bind(messages.conversation).bind(messages.record);
        let query = query.bind(mailbox.shard).bind(mailbox.owner).bind(mailbox.seq).bind(mailbox.position).bind(mailbox.at_ms);
        let query = query.bind(mailbox.conversation).bind(mailbox.refusal);
        let query = query.bind(heads.shard).bind(heads.owner).bind(heads.before).bind(heads.after).bind(heads.at_ms);
        let query = query.bind(conversations.shard).bind(conversations.owner).bind(conversations.seq);
        let query = query.bind(conversations.position).bind(conversations.conversation);
        query.bind(waters.shard).bind(waters.partition).bind(waters.epoch).bind(waters.next_offset).bind(waters.digest)
    }
}

impl Keys {
    fn push(&mut self, shard: i32, key: &KeyOf, row: &KeyRow) -> Result<(), StoreError> {
        self.shard.push(shard);
        self.owner.push(signed(key.owner.get())?);
        self.sender.push(signed(key.identity.sender.get())?);
        self.seq.push(row.seq.map(signed).transpose()?);
        self.position.push(signed(row.position.get())?);
        self.id.push(*key.identity.id.bytes());
        self.conversation.push(key.identity.conversation.key());
        self.refused.push(refused(key));
        self.hash.push(row.body_hash.0.to_be_bytes());
        Ok(())
    }
}

/// The column that tells a refusal's key from the message's.
pub(super) fn refused(key: &KeyOf) -> Vec<u8> {
    key.refused.map_or_else(Vec::new, |hash| hash.to_be_bytes().to_vec())
}

impl Heads {
    /// None: the rows of this mailbox are not dense.
    fn push(&mut self, shard: i32, owner: UserId, (seq, at_ms): (i64, i64), seen: &mut Seen) -> Option<()> {
        match seen.heads.entry(owner) {
            Entry::Occupied(at) => {
                let after = self.after.get_mut(*at.get())?;
                *after = (*after + 1 == seq).then_some(seq)?;
            }
            Entry::Vacant(at) => {
                let before = seq.checked_sub(1).filter(|before| *before >= 0)?;
                at.insert(self.owner.len());
                self.shard.push(shard);
                self.owner.push(bound(owner.get()));
                self.before.push(before);
                self.after.push(seq);
                self.at_ms.push(at_ms);
            }
        }
        Some(())
    }
}

impl Waters {
    fn push(&mut self, shard: i32, water: &HighWater) -> Result<(), StoreError> {
        let Link { next_offset, digest } = water.link;
        self.shard.push(shard);
        self.partition.push(i32::from(water.source.partition));
        self.epoch.push(i32::from(water.source.epoch));
        self.next_offset.push(signed(next_offset)?);
        self.digest.push(bits(digest));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use protocol::record::{Event, Message};

    use super::*;
    use crate::store::contract::{message, user};

    fn commit(rows: &[(u64, u64, &Arc<Message>)]) -> Commit {
        let row = |(owner, seq, message): &(u64, u64, &Arc<Message>)| Row {
            owner: user(*owner),
            event: Event { seq: *seq, body: EventBody::Message(Arc::clone(message)) },
        };
        Commit { rows: rows.iter().map(row).collect(), ..Commit::default() }
    }

    #[test]
    fn a_message_of_two_owners_is_stored_once_and_counted_twice() {
        let (one, other) = (message(1, 2, 1), message(1, 3, 2));
        let batch = Batch::of(ShardId(0), &commit(&[(1, 8, &one), (2, 1, &one), (1, 9, &other)])).unwrap();
        assert_eq!(batch.messages.refs, [2, 1]);
        assert_eq!((batch.heads.before, batch.heads.after), (vec![7, 0], vec![9, 1]));
        assert_eq!(batch.heads.at_ms, [1, 1], "of the first new event");
        assert_eq!(batch.conversations.seq, [8, 1, 9]);
        let again = message(1, 2, 3);
        let batch = Batch::of(ShardId(0), &commit(&[(1, 1, &one), (1, 2, &again)])).unwrap();
        assert_eq!((batch.conversations.seq, batch.mailbox.seq), (vec![2], vec![1, 2]), "the last of each conversation");
    }

    #[test]
    fn a_batch_with_a_hole_is_fenced() {
        let one = message(1, 2, 1);
        for seqs in [[1, 3], [2, 2], [2, 1]] {
            let refused = Batch::of(ShardId(5), &commit(&[(1, seqs[0], &one), (1, seqs[1], &one)])).unwrap_err();
            assert_eq!(refused, StoreError::Fenced(5), "{seqs:?}");
        }
        assert_eq!(Batch::of(ShardId(5), &commit(&[(1, 0, &one)])).unwrap_err(), StoreError::Fenced(5));
        assert!(matches!(Batch::of(ShardId(5), &commit(&[(1, 1 << 63, &one)])), Err(StoreError::Damaged(_))));
    }
}
