//! Commits. A batch goes out as one call of one function: one round trip, one statement, one transaction, the compare-and-set first. No
//! transaction is ever open between two messages, so an owner that freezes holds no lock, and nothing can come between compare and commit.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use protocol::record::{EventBody, Link, Source};
use protocol::{ConversationId, UserId};
use router::expand::ShardId;
use sqlx::postgres::PgRow;

use super::Inner;
use super::base::{Failed, PgQuery};
use super::rows::{bits, bound, damaged, get, number, signed, unbits, unsigned, whole};
use crate::store::{Acquired, Checkpoint, Commit, HighWater, KeyOf, KeyRow, Row, StoreError};

const COMMIT: &str = "SELECT commit_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, \
     $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35)";
const ACQUIRE: &str = "SELECT * FROM acquire_shard($1)";
const CHECKPOINT: &str = "SELECT owner_epoch, next_offset FROM shard WHERE shard = $1 AND state = 'open'";
const FENCED: &str = "SB001";
const UNIQUE_VIOLATION: &str = "23505";

impl Inner {
    pub(super) async fn commit_now(&self, shard: ShardId, commit: &Commit) -> Result<(), StoreError> {
        let batch = Batch::of(shard, commit)?;
        let base = self.base_of(shard).await?;
        match base.write(batch.query(shard, commit)?).await {
            Ok(_) => Ok(()),
            Err(Failed::NotSent(why)) => Err(why),
            Err(Failed::Unknown(why)) => {
                tracing::warn!(shard = shard.0, database = base.name, why, "the outcome of a commit is unknown");
                Err(StoreError::Unknown)
            }
            Err(Failed::Refused(why)) => match why.code() {
                FENCED => {
                    // it may have moved: whoever takes it next is to look where it is now
                    self.wake.notify_one();
                    Err(StoreError::Fenced(shard.0))
                }
                UNIQUE_VIOLATION if why.table() == Some("identity_key") => Err(StoreError::Conflict(shard.0)),
                // constraints, bad data, our own SB002: no try will do better
                code if ["22", "23", "42", "SB"].iter().any(|class| code.starts_with(class)) => {
                    Err(StoreError::Damaged(format!("{}: {} ({code})", base.name, why.message())))
                }
                _ => Err(Failed::Refused(why).unavailable(&base.name)),
            },
        }
    }

    pub(super) async fn acquire_now(&self, shard: ShardId) -> Result<Acquired, StoreError> {
        let rows = self.at(shard, || sqlx::query(ACQUIRE).bind(i32::from(shard.0))).await?;
        acquired(first(&rows)?)
    }

    pub(super) async fn checkpoint_now(&self, shard: ShardId) -> Result<Checkpoint, StoreError> {
        let rows = self.at(shard, || sqlx::query(CHECKPOINT).bind(i32::from(shard.0))).await?;
        checkpoint(first(&rows)?)
    }
}

pub(super) fn first(rows: &[PgRow]) -> Result<&PgRow, StoreError> {
    rows.first().ok_or_else(|| damaged("a statement without an answer"))
}

fn checkpoint(row: &PgRow) -> Result<Checkpoint, StoreError> {
    Ok(Checkpoint { owner_epoch: number(row, "owner_epoch")?, offset: number(row, "next_offset")? })
}

fn acquired(row: &PgRow) -> Result<Acquired, StoreError> {
    let partitions: Option<Vec<i32>> = get(row, "w_partition")?;
    let epochs: Option<Vec<i32>> = get(row, "w_epoch")?;
    let offsets: Option<Vec<i64>> = get(row, "w_next")?;
    let digests: Option<Vec<i64>> = get(row, "w_digest")?;
    let short = |number: i32| u16::try_from(number).map_err(|_| damaged("a source"));
    let numbers = partitions.into_iter().flatten().zip(epochs.into_iter().flatten());
    let links = offsets.into_iter().flatten().zip(digests.into_iter().flatten());
    let high_waters = numbers.zip(links).map(|((partition, epoch), (next_offset, digest))| {
        let source = Source { partition: short(partition)?, epoch: short(epoch)? };
        Ok(HighWater { source, link: Link { next_offset: unsigned(next_offset)?, digest: unbits(digest) } })
    });
    Ok(Acquired {
        checkpoint: checkpoint(row)?,
        fingerprint: whole(row, "fingerprint")?,
        stream_epoch: number(row, "stream_epoch")?,
        high_waters: high_waters.collect::<Result<_, StoreError>>()?,
    })
}

/// The columns of a commit, as the function takes them.
#[derive(Debug, Default)]
struct Batch {
    keys: Keys,
    messages: Messages,
    mailbox: Mailbox,
    heads: Heads,
    conversations: Conversations,
}

#[derive(Debug, Default)]
struct Keys {
    owner: Vec<i64>,
    sender: Vec<i64>,
    seq: Vec<Option<i64>>,
    position: Vec<i64>,
    id: Vec<[u8; 16]>,
    conversation: Vec<[u8; ConversationId::KEY_LEN]>,
    refused: Vec<Vec<u8>>,
    hash: Vec<[u8; 16]>,
}

#[derive(Debug, Default)]
struct Messages {
    refs: Vec<i32>,
    position: Vec<i64>,
    conversation: Vec<[u8; ConversationId::KEY_LEN]>,
    record: Vec<Vec<u8>>,
}

#[derive(Debug, Default)]
struct Mailbox {
    owner: Vec<i64>,
    seq: Vec<i64>,
    position: Vec<i64>,
    at_ms: Vec<i64>,
    conversation: Vec<[u8; ConversationId::KEY_LEN]>,
    refusal: Vec<Option<Vec<u8>>>,
}

#[derive(Debug, Default)]
struct Heads {
    owner: Vec<i64>,
    before: Vec<i64>,
    after: Vec<i64>,
    /// Of the first new event: the oldest, if the mailbox was empty.
    at_ms: Vec<i64>,
}

#[derive(Debug, Default)]
struct Conversations {
    owner: Vec<i64>,
    seq: Vec<i64>,
    position: Vec<i64>,
    conversation: Vec<[u8; ConversationId::KEY_LEN]>,
}

/// Where in the columns something already is.
#[derive(Debug, Default)]
struct Seen {
    messages: HashMap<(ConversationId, i64), usize>,
    heads: HashMap<UserId, usize>,
    conversations: HashMap<(UserId, ConversationId), usize>,
}

impl Batch {
    /// Fenced when the rows of a mailbox have a hole among themselves; the database looks at where they begin.
    fn of(shard: ShardId, commit: &Commit) -> Result<Self, StoreError> {
        let (mut batch, mut seen) = (Self::default(), Seen::default());
        for (key, row) in &commit.keys {
            batch.keys.push(key, row)?;
        }
        for row in &commit.rows {
            batch.push(shard, row, &mut seen)?;
        }
        Ok(batch)
    }

    fn push(&mut self, shard: ShardId, row: &Row, seen: &mut Seen) -> Result<(), StoreError> {
        let (body, owner) = (&row.event.body, signed(row.owner.get())?);
        let (seq, position, conversation) = (signed(row.event.seq)?, signed(body.position().get())?, body.conversation());
        let (at_ms, refusal) = match body {
            EventBody::Message(message) => (message.record.at_ms, None),
            EventBody::Refused(refusal) => (refusal.at_ms, Some(refusal.encode().to_vec())),
        };
        self.heads.push(row.owner, seq, bound(at_ms), seen).ok_or(StoreError::Fenced(shard.0))?;
        let mailbox = &mut self.mailbox;
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
                conversations.owner.push(owner);
                conversations.seq.push(seq);
                conversations.position.push(position);
                conversations.conversation.push(conversation.key());
            }
        }
        Ok(())
    }

    fn query(self, shard: ShardId, commit: &Commit) -> Result<PgQuery<'static>, StoreError> {
        let waters = &commit.high_waters;
        let offsets: Result<Vec<_>, _> = waters.iter().map(|one| signed(one.link.next_offset)).collect();
        let query = sqlx::query(COMMIT)
            .bind(i32::from(shard.0))
            .bind(signed(commit.expect.owner_epoch)?)
            .bind(signed(commit.expect.offset)?)
            .bind(signed(commit.next_offset)?)
            .bind(bits(commit.fingerprint));
        let Self { keys, messages, mailbox, heads, conversations } = self;
        let query = query.bind(keys.owner).bind(keys.sender).bind(keys.seq).bind(keys.position);
        let query = query.bind(keys.id).bind(keys.conversation).bind(keys.refused).bind(keys.hash);
        let query = query.bind(messages.refs).bind(messages.position).bind(messages.conversation).bind(messages.record);
        let query = query.bind(mailbox.owner).bind(mailbox.seq).bind(mailbox.position).bind(mailbox.at_ms);
        let query = query.bind(mailbox.conversation).bind(mailbox.refusal);
        let query = query.bind(heads.owner).bind(heads.before).bind(heads.after).bind(heads.at_ms);
        let query = query.bind(conversations.owner).bind(conversations.seq);
        let query = query.bind(conversations.position).bind(conversations.conversation);
        Ok(query
            .bind(waters.iter().map(|one| i32::from(one.source.partition)).collect::<Vec<_>>())
            .bind(waters.iter().map(|one| i32::from(one.source.epoch)).collect::<Vec<_>>())
            .bind(offsets?)
            .bind(waters.iter().map(|one| bits(one.link.digest)).collect::<Vec<_>>()))
    }
}

impl Keys {
    fn push(&mut self, key: &KeyOf, row: &KeyRow) -> Result<(), StoreError> {
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
    fn push(&mut self, owner: UserId, seq: i64, at_ms: i64, seen: &mut Seen) -> Option<()> {
        match seen.heads.entry(owner) {
            Entry::Occupied(at) => {
                let after = self.after.get_mut(*at.get())?;
                *after = (*after + 1 == seq).then_some(seq)?;
            }
            Entry::Vacant(at) => {
                let before = seq.checked_sub(1).filter(|before| *before >= 0)?;
                at.insert(self.owner.len());
                self.owner.push(bound(owner.get()));
                self.before.push(before);
                self.after.push(seq);
                self.at_ms.push(at_ms);
            }
        }
        Some(())
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
