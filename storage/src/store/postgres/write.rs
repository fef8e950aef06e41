//! Commits. Batches go out as one call of one function: one round trip, one statement, one transaction, the compare-and-set first. No transaction
//! is ever open between two messages, so an owner that freezes holds no lock, and nothing can come between compare and commit.

use protocol::record::{Link, Source};
use router::expand::ShardId;
use sqlx::postgres::PgRow;

use super::base::Failed;
use super::rows::{damaged, get, number, unbits, unsigned, whole};
use super::{Inner, group};
use crate::store::{Acquired, Checkpoint, Commit, HighWater, StoreError};

const ACQUIRE: &str = "SELECT * FROM acquire_shard($1)";
const CHECKPOINT: &str = "SELECT owner_epoch, next_offset FROM shard WHERE shard = $1 AND state = 'open'";
const FENCED: &str = "SB001";
const UNIQUE_VIOLATION: &str = "23505";

impl Inner {
    pub(super) async fn commit_now(&self, shard: ShardId, commit: Commit) -> Result<(), StoreError> {
        let base = self.base_of(shard).await?;
        match group::commit(base, shard, commit).await {
            Ok(()) => Ok(()),
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
