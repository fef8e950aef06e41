//! Removing what is too old, in small steps of one short transaction each. A step holds the shard's row for some milliseconds, so commits go
//! on beside it; an advisory lock keeps other nodes, and a move, from working on the same shard.

use futures_util::future::join_all;
use router::expand::ShardId;

use super::Inner;
use super::base::Base;
use super::rows::{bound, number};
use super::write::first;
use crate::store::{Cutoff, Retained, StoreError};

/// Mailboxes of one step.
const OWNERS: i32 = 32;
/// Events of one mailbox in one step.
const EVENTS: i32 = 64;
/// Keys of one step.
const KEYS: i32 = 1000;
/// Steps of one shard in one pass; the next pass goes on.
const STEPS_MAX: usize = 10_000;

const RETAIN_EVENTS: &str = "SELECT events, messages FROM retain_events($1, $2, $3, $4)";
const RETAIN_KEYS: &str = "SELECT retain_keys($1, $2, $3) AS keys";
const RETAIN_DEVICES: &str = "SELECT retain_devices($1, $2) AS devices";

impl Inner {
    /// All shards of all databases that answer. The first error is told when the others are done.
    pub(super) async fn retain_now(&self, cutoff: Cutoff) -> Result<Retained, StoreError> {
        let bases = self.bases.iter().enumerate().map(async |(at, base)| {
            let (shards, mut retained) = (self.map.read().of(at), Retained::default());
            for shard in shards {
                self.retain_shard(base, shard, cutoff, &mut retained).await?;
            }
            Ok::<_, StoreError>(retained)
        });
        let mut all = Retained::default();
        let mut failed = Ok(());
        for done in join_all(bases).await {
            match done {
                Ok(one) => {
                    all.events += one.events;
                    all.messages += one.messages;
                    all.keys += one.keys;
                }
                Err(why) => failed = Err(why),
            }
        }
        failed.map(|()| all)
    }

    async fn retain_shard(&self, base: &Base, shard: ShardId, cutoff: Cutoff, retained: &mut Retained) -> Result<(), StoreError> {
        let number_of = i32::from(shard.0);
        if cutoff.events_before_ms > 0 {
            let before = bound(cutoff.events_before_ms);
            for _ in 0..STEPS_MAX {
                let make = || sqlx::query(RETAIN_EVENTS).bind(number_of).bind(before).bind(OWNERS).bind(EVENTS);
                let rows = base.read(make).await?;
                let row = first(&rows)?;
                let events = number(row, "events")?;
                retained.events += events;
                retained.messages += number(row, "messages")?;
                if events == 0 {
                    break;
                }
            }
        }
        // the first bytes of an id are its time
        let before = cutoff.keys_before_ms.min((1 << 48) - 1).to_be_bytes();
        for _ in 0..STEPS_MAX {
            let rows = base.read(|| sqlx::query(RETAIN_KEYS).bind(number_of).bind(&before[2..]).bind(KEYS)).await?;
            let keys = number(first(&rows)?, "keys")?;
            retained.keys += keys;
            if keys < KEYS as u64 {
                break;
            }
        }
        base.read(|| sqlx::query(RETAIN_DEVICES).bind(number_of).bind(i32::from(self.device_days))).await?;
        Ok(())
    }
}
