//! Cursors of devices, and the heads of many mailboxes at once. A statement that writes locks the row of its shard against a move (`FOR KEY SHARE`,
//! which commits do not wait for): a cursor that was said to be kept is in the copy.

use std::collections::HashMap;

use futures_util::future::join_all;
use protocol::{DeviceName, Seq, UserId};
use router::expand::ShardId;

use super::Inner;
use super::rows::{bound, get, number, signed, unsigned};
use super::write::first;
use crate::store::{Cursor, Place, StoreError};

/// A device that was seen today is only read; so a reconnect writes nothing.
const CURSOR: &str = "WITH here AS (SELECT shard, stream_epoch FROM shard WHERE shard = $1 AND state = 'open' FOR KEY SHARE), \
     found AS (SELECT d.epoch, d.seq FROM here JOIN device d ON d.shard = here.shard AND d.owner = $2 AND d.device = $3 \
         AND d.epoch = here.stream_epoch AND d.seen_at > now() - interval '1 day'), \
     born AS (INSERT INTO device AS d (shard, owner, device, epoch, seq, seen_at) \
         SELECT here.shard, $2, $3, here.stream_epoch, coalesce($4, h.head, 0), now() \
         FROM here LEFT JOIN head h ON h.shard = here.shard AND h.owner = $2 WHERE NOT EXISTS (SELECT FROM found) \
         ON CONFLICT (shard, owner, device) DO UPDATE SET seen_at = excluded.seen_at, epoch = excluded.epoch, \
             seq = CASE WHEN d.epoch = excluded.epoch THEN d.seq ELSE excluded.seq END \
         RETURNING epoch, seq) \
     SELECT epoch, seq FROM found UNION ALL SELECT epoch, seq FROM born";
/// Only what is open here is written: a copy that has gone must stay as it went. The absence of a shard from the answer says that it is not here.
const SAVE: &str = "WITH here AS (SELECT shard, stream_epoch FROM shard WHERE shard = ANY($1) AND state = 'open' ORDER BY shard FOR KEY SHARE), \
     saved AS (INSERT INTO device AS d (shard, owner, device, epoch, seq, seen_at) \
         SELECT t.shard, t.owner, t.device, t.epoch, t.seq, now() FROM unnest($2, $3, $4, $5, $6) AS t(shard, owner, device, epoch, seq) \
         JOIN here s ON s.shard = t.shard AND s.stream_epoch = t.epoch ORDER BY t.shard, t.owner, t.device \
         ON CONFLICT (shard, owner, device) DO UPDATE SET seen_at = excluded.seen_at, epoch = excluded.epoch, \
             seq = CASE WHEN d.epoch = excluded.epoch THEN greatest(d.seq, excluded.seq) ELSE excluded.seq END) \
     SELECT shard FROM here";
const NEWEST: &str = "SELECT t.at, s.stream_epoch, coalesce(h.head, 0) AS head FROM unnest($1, $2) WITH ORDINALITY AS t(shard, owner, at) \
     LEFT JOIN shard s ON s.shard = t.shard AND s.state = 'open' LEFT JOIN head h ON h.shard = t.shard AND h.owner = t.owner";

impl Inner {
    pub(super) async fn cursor_now(&self, owner: UserId, device: &DeviceName, says: Option<Seq>) -> Result<Place, StoreError> {
        let shard = self.shards.of(owner);
        let (number_of, says) = (signed(owner.get())?, says.map(signed).transpose()?);
        let rows = self
            .at(shard, || sqlx::query(CURSOR).bind(i32::from(shard.0)).bind(number_of).bind(device.as_str()).bind(says))
            .await?;
        let row = first(&rows)?;
        Ok(Place { epoch: number(row, "epoch")?, seq: number(row, "seq")? })
    }

    /// One statement for each database. What one of them does not take fails the call when all are done: saving again changes nothing.
    pub(super) async fn save_now(&self, cursors: &[Cursor]) -> Result<(), StoreError> {
        // of one device only the newest: a row cannot be written twice by one statement
        let mut newest: HashMap<(UserId, &DeviceName), (u64, Seq)> = HashMap::with_capacity(cursors.len());
        for cursor in cursors {
            let known = newest.entry((cursor.owner, &cursor.device)).or_default();
            // another stream epoch than the present one is dropped by the database; here the present one must win over a stranger's number
            let present = self.map.read().stream_epoch(self.shards.of(cursor.owner));
            let rank = |epoch: u64, seq: Seq| (epoch == present, epoch, seq);
            if rank(cursor.epoch, cursor.seq) > rank(known.0, known.1) {
                *known = (cursor.epoch, cursor.seq);
            }
        }
        let mut by_base: HashMap<usize, Columns<'_>> = HashMap::new();
        let mut failed = None;
        for ((owner, device), (epoch, seq)) in newest {
            let shard = self.shards.of(owner);
            match self.index_of(shard) {
                Some(base) => by_base.entry(base).or_default().push(shard, owner, device, (epoch, seq))?,
                None => failed = Some(nowhere(shard)),
            }
        }
        let saved = join_all(by_base.iter().map(|(base, columns)| self.save_at(*base, columns))).await;
        match saved.into_iter().find_map(Result::err).or(failed) {
            None => Ok(()),
            Some(why) => {
                self.wake.notify_one();
                Err(why)
            }
        }
    }

    async fn save_at(&self, base: usize, columns: &Columns<'_>) -> Result<(), StoreError> {
        let mut shards = columns.shard.clone();
        shards.sort_unstable();
        shards.dedup();
        let make = || {
            let query = sqlx::query(SAVE).bind(&shards).bind(&columns.shard).bind(&columns.owner).bind(&columns.device);
            query.bind(&columns.epoch).bind(&columns.seq)
        };
        let rows = self.bases[base].read(make).await?;
        if rows.len() < shards.len() {
            return Err(StoreError::Unavailable("a shard of these cursors has moved".to_owned()));
        }
        Ok(())
    }

    pub(super) async fn newest_now(&self, owners: &[UserId]) -> Vec<Option<Place>> {
        let mut places = vec![None; owners.len()];
        let mut asked: Vec<usize> = (0..owners.len()).collect();
        for last in [false, true] {
            let seen = self.seen();
            let mut by_base: HashMap<usize, Vec<usize>> = HashMap::new();
            let mut stray = Vec::new();
            for at in asked {
                match self.index_of(self.shards.of(owners[at])) {
                    Some(base) => by_base.entry(base).or_default().push(at),
                    None => stray.push(at),
                }
            }
            let answers = by_base.into_iter().map(async |(base, asked)| (self.newest_at(base, owners, &asked).await, asked));
            for (answer, asked) in join_all(answers).await {
                // one that does not answer now: none
                let Ok(found) = answer else { continue };
                for (at, place) in asked.into_iter().zip(found) {
                    places[at] = place;
                    stray.extend(place.is_none().then_some(at));
                }
            }
            asked = stray;
            if asked.is_empty() || last {
                break;
            }
            self.refresh(seen).await;
        }
        places
    }

    /// One query of one database; none for a mailbox whose shard is not open there.
    async fn newest_at(&self, base: usize, owners: &[UserId], asked: &[usize]) -> Result<Vec<Option<Place>>, StoreError> {
        let shards: Vec<_> = asked.iter().map(|at| i32::from(self.shards.of(owners[*at]).0)).collect();
        let numbers: Vec<_> = asked.iter().map(|at| bound(owners[*at].get())).collect();
        let rows = self.bases[base].read(|| sqlx::query(NEWEST).bind(&shards).bind(&numbers)).await?;
        let mut places = vec![None; asked.len()];
        for row in &rows {
            let at = usize::try_from(get::<i64>(row, "at")? - 1).unwrap_or(usize::MAX);
            if let (Some(place), Some(epoch)) = (places.get_mut(at), get::<Option<i64>>(row, "stream_epoch")?) {
                *place = Some(Place { epoch: unsigned(epoch)?, seq: number(row, "head")? });
            }
        }
        Ok(places)
    }
}

pub(super) fn nowhere(shard: ShardId) -> StoreError {
    StoreError::Unavailable(format!("no database that answers has shard {}", shard.0))
}

#[derive(Debug, Default)]
struct Columns<'a> {
    shard: Vec<i32>,
    owner: Vec<i64>,
    device: Vec<&'a str>,
    epoch: Vec<i64>,
    seq: Vec<i64>,
}

impl<'a> Columns<'a> {
    fn push(&mut self, shard: ShardId, owner: UserId, device: &'a DeviceName, at: (u64, Seq)) -> Result<(), StoreError> {
        let (owner, epoch, seq) = (signed(owner.get())?, signed(at.0)?, signed(at.1)?);
        self.shard.push(shard.0.into());
        self.owner.push(owner);
        self.device.push(device.as_str());
        self.epoch.push(epoch);
        self.seq.push(seq);
        Ok(())
    }
}
