//! How far the shards are, read for all of them at once: for metrics, for the word that a shard is late, and for the audit of its sources.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use protocol::record::{Link, Source};
use router::expand::ShardId;
use sqlx::postgres::PgRow;

use super::PostgresStore;
use super::base::Base;
use super::rows::{damaged, get, number, whole};
use crate::store::{Checkpoint, StoreError};

const POSITIONS: &str = "SELECT shard, owner_epoch, next_offset FROM shard WHERE state = 'open'";
/// The row of the shard is read in the same snapshot: what stood before it is worked in.
const HIGH_WATERS: &str = "SELECT s.shard, s.next_offset AS position, w.partition, w.epoch, w.next_offset, w.digest \
     FROM shard s LEFT JOIN high_water w ON w.shard = s.shard WHERE s.shard = ANY($1) AND s.state = 'open'";

/// What a shard has taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// The next offset of its log to be worked in.
    pub position: u64,
    /// Of each source, the last link taken.
    pub sources: BTreeMap<Source, Link>,
}

fn short(row: &PgRow, column: &str) -> Result<u16, StoreError> {
    u16::try_from(get::<i32>(row, column)?).map_err(|_| damaged("a number of a partition"))
}

impl PostgresStore {
    /// The checkpoints of all open shards; those of a database that does not answer are left out.
    pub async fn positions(&self) -> BTreeMap<ShardId, Checkpoint> {
        let asked = self.inner.bases.iter().map(async |base| base.read(|| sqlx::query(POSITIONS)).await);
        let mut positions = BTreeMap::new();
        for rows in join_all(asked).await.into_iter().flatten() {
            for row in &rows {
                let one = || {
                    let checkpoint = Checkpoint { owner_epoch: number(row, "owner_epoch")?, offset: number(row, "next_offset")? };
                    Ok::<_, StoreError>((ShardId(short(row, "shard")?), checkpoint))
                };
                let Ok((shard, checkpoint)) = one() else { continue };
                // between two databases: the one that has gone further is the one it moved to
                let known = positions.entry(shard).or_insert(checkpoint);
                if known.owner_epoch < checkpoint.owner_epoch {
                    *known = checkpoint;
                }
            }
        }
        positions
    }

    /// What these shards have taken from each source; those of a database that does not answer are left out.
    pub async fn taken(&self, shards: &[ShardId]) -> BTreeMap<ShardId, Taken> {
        let asked: Vec<_> = shards.iter().map(|shard| i32::from(shard.0)).collect();
        let ask = async |base: &Arc<Base>| base.read(|| sqlx::query(HIGH_WATERS).bind(&asked)).await;
        let mut all: BTreeMap<ShardId, Taken> = BTreeMap::new();
        for rows in join_all(self.inner.bases.iter().map(ask)).await.into_iter().flatten() {
            for row in &rows {
                let one = || {
                    let shard = ShardId(short(row, "shard")?);
                    let source = match get::<Option<i32>>(row, "partition")? {
                        Some(_) => {
                            let source = Source { partition: short(row, "partition")?, epoch: short(row, "epoch")? };
                            let link = Link { next_offset: number(row, "next_offset")?, digest: whole(row, "digest")? };
                            Some((source, link))
                        }
                        None => None,
                    };
                    Ok::<_, StoreError>((shard, number(row, "position")?, source))
                };
                let Ok((shard, position, source)) = one() else { continue };
                let taken = all.entry(shard).or_default();
                taken.position = position;
                taken.sources.extend(source);
            }
        }
        all
    }
}
