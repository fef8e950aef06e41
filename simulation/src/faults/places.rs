//! The databases: each virtual shard is open in exactly one of two. It may move to the other, be set back to a backup, or be numbered anew. The
//! steps of a move, and what a crash between them leaves, are those of the storage crate's `move_shard`.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use protocol::plant::{Bug, planted};
use protocol::record::{MailboxRecord, Source};
use protocol::{Seq, UserId};
use router::checkpoint::fingerprint;
use router::expand::{ShardId, Shards};
use router::log::memory::MemoryLog;
use router::log::{Log, Topic};
use storage::store::memory::MemoryStore;
use storage::store::{Commit, HighWater, Store, StoreError};

use crate::sim::Sim;

/// How many databases there are.
const DATABASES: usize = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Serves.
    Open,
    /// Being filled by the mover with this token.
    Copying(u64),
    /// Serves nobody any more.
    Moved,
}

struct Place {
    state: State,
    store: MemoryStore,
}

/// Which event was committed when, for the checks of promptness, of attach, and of replay.
#[derive(Debug, Default)]
pub struct Committed {
    at_ms: Mutex<BTreeMap<(UserId, Seq), u64>>,
    bodies: Mutex<BTreeMap<(UserId, u64, Seq), u64>>,
}

impl Committed {
    /// When this event was first committed.
    pub fn at_ms(&self, owner: UserId, seq: Seq) -> Option<u64> {
        self.at_ms.lock().get(&(owner, seq)).copied()
    }

    /// The newest seq committed for an owner.
    pub fn head(&self, owner: UserId) -> Seq {
        let at_ms = self.at_ms.lock();
        let newest = at_ms.range(..=(owner, Seq::MAX)).next_back();
        newest.filter(|((of, _), _)| *of == owner).map_or(0, |((_, seq), _)| *seq)
    }
}

/// Every database.
pub struct Databases {
    sim: Arc<Sim>,
    log: MemoryLog,
    /// How many shards there are.
    pub shards: Shards,
    /// What was committed when.
    pub committed: Committed,
    places: Mutex<BTreeMap<(ShardId, usize), Place>>,
    backups: Mutex<BTreeMap<ShardId, MemoryStore>>,
    /// How far any owner has read each shard's log: what a consumer group would have stored.
    read_to: Mutex<BTreeMap<ShardId, u64>>,
}

impl Databases {
    /// Every shard empty and open in the first database.
    pub fn new(sim: &Arc<Sim>, log: &MemoryLog, shards: Shards) -> Arc<Self> {
        let place = |number| ((ShardId(number), 0), Place { state: State::Open, store: MemoryStore::new() });
        Arc::new(Self {
            sim: Arc::clone(sim),
            log: log.clone(),
            shards,
            committed: Committed::default(),
            places: Mutex::new((0..shards.count()).map(place).collect()),
            backups: Mutex::default(),
            read_to: Mutex::default(),
        })
    }

    /// A shard in a database, if it is open there.
    pub fn at(&self, shard: ShardId, database: usize) -> Option<MemoryStore> {
        let places = self.places.lock();
        places.get(&(shard, database)).filter(|place| place.state == State::Open).map(|place| place.store.clone())
    }

    /// In which database a shard is open.
    pub fn find(&self, shard: ShardId) -> Option<usize> {
        (0..DATABASES).find(|database| self.at(shard, *database).is_some())
    }

    /// The shard wherever it is: for those who judge.
    pub fn newest(&self, shard: ShardId) -> MemoryStore {
        let open = self.find(shard).and_then(|database| self.at(shard, database));
        open.unwrap_or_else(|| {
            let places = self.places.lock();
            let mut there = (0..DATABASES).filter_map(|database| places.get(&(shard, database)));
            there.find(|place| place.state == State::Moved).map(|place| place.store.clone()).unwrap_or_default()
        })
    }

    /// The shard of a mailbox, wherever it is.
    pub fn of(&self, user: UserId) -> MemoryStore {
        self.newest(self.shards.of(user))
    }

    /// An owner has read so far.
    pub fn note_read(&self, shard: ShardId, next: u64) {
        let mut read_to = self.read_to.lock();
        let known = read_to.entry(shard).or_default();
        *known = next.max(*known);
    }

    /// What the planted bug takes for true at acquire.
    pub async fn skip_to_read(&self, shard: ShardId, store: &MemoryStore) {
        let to = self.read_to.lock().get(&shard).copied().unwrap_or(0);
        self.skip(shard, store, to).await;
    }

    /// Moves a checkpoint on without the rows that belong to it: what a bug would do.
    async fn skip(&self, shard: ShardId, store: &MemoryStore, to: u64) {
        let Ok(now) = store.checkpoint(shard).await else { return };
        if to <= now.offset {
            return;
        }
        let records = self.log.read(Topic::Mailbox, shard.0, now.offset, (to - now.offset) as usize).await.unwrap_or_default();
        let Some(last) = records.last() else { return };
        let mut links: BTreeMap<Source, _> = BTreeMap::new();
        for record in records.iter().filter_map(|entry| MailboxRecord::decode(&entry.payload).ok()) {
            links.insert(record.source, record.link);
        }
        let commit = Commit {
            expect: now,
            next_offset: to,
            fingerprint: fingerprint(&last.payload),
            high_waters: links.into_iter().map(|(source, link)| HighWater { source, link }).collect(),
            ..Commit::default()
        };
        drop(store.commit(shard, commit).await);
    }

    /// Commits where the shard was open when the commit was sent, and looks whether a stale owner was let through, and whether a replay says
    /// what was said before.
    pub async fn commit(&self, shard: ShardId, database: usize, commit: Commit) -> Result<(), StoreError> {
        let Some(store) = self.at(shard, database) else {
            self.sim.saw("commit met a shard that has moved");
            return Err(StoreError::Fenced(shard.0));
        };
        let before = store.checkpoint(shard).await?;
        let (expect, next) = (commit.expect, commit.next_offset);
        let rows: Vec<_> = commit.rows.iter().map(|row| (row.owner, row.event.seq)).collect();
        let bodies: Vec<_> = commit.rows.iter().map(|row| fingerprint(&row.event.body.encode())).collect();
        let result = store.commit(shard, commit).await;
        self.sim.note(|| {
            format!("shard {} commits {}->{next} by owner {}: {rows:?} {result:?}", shard.0, expect.offset, expect.owner_epoch)
        });
        match &result {
            Ok(()) if before != expect => {
                self.sim.wrong(format!("a stale owner's commit was taken: {expect:?} at {before:?}"));
            }
            Ok(()) => {}
            Err(StoreError::Fenced(_)) => self.sim.saw("stale commit refused by the compare-and-set"),
            Err(StoreError::Conflict(_)) => self.sim.saw("commit met a known key: keys are asked"),
            Err(_) => {}
        }
        if result.is_ok() {
            let now_ms = self.sim.now_ms();
            let mut known = self.committed.bodies.lock();
            for ((owner, seq), body) in rows.iter().zip(bodies) {
                let epoch = store.known_epoch(*owner);
                let first = *known.entry((*owner, epoch, *seq)).or_insert(body);
                if first != body && !planted(Bug::NoFence) {
                    self.sim.wrong(format!("replay: event {seq} of {owner} is another one than before"));
                }
            }
            let mut at_ms = self.committed.at_ms.lock();
            for row in rows {
                at_ms.entry(row).or_insert(now_ms);
            }
        }
        result
    }

    /// A backup of a shard is made.
    pub fn back_up(&self, shard: ShardId) {
        self.backups.lock().insert(shard, self.newest(shard).copied());
    }

    /// A shard is set back to its backup: its owners are fenced, the log is replayed.
    pub async fn set_back(&self, shard: ShardId) {
        let (Some(database), Some(backup)) = (self.find(shard), self.backups.lock().get(&shard).map(MemoryStore::copied)) else {
            return;
        };
        let now = self.newest(shard).checkpoint(shard).await.unwrap_or_default();
        // as with a promoted copy of a move: no owner epoch comes twice
        while backup.checkpoint(shard).await.is_ok_and(|old| old.owner_epoch <= now.owner_epoch) {
            drop(backup.acquire(shard).await);
        }
        let old = backup.checkpoint(shard).await.unwrap_or_default();
        self.sim.note(|| format!("shard {} is set back from {} to {}", shard.0, now.offset, old.offset));
        if old.offset < now.offset {
            self.sim.saw("shard set back to a backup: the log is replayed");
        }
        if let Some(place) = self.places.lock().get_mut(&(shard, database)) {
            place.store = backup;
        }
    }

    /// A shard's mailboxes are numbered otherwise, in a new stream epoch. As a person would: its owner is fenced first.
    pub async fn renumber(&self, shard: ShardId) {
        let Some(store) = self.find(shard).and_then(|database| self.at(shard, database)) else { return };
        drop(store.acquire(shard).await);
        store.renumber();
        self.backups.lock().remove(&shard);
        self.sim.note(|| format!("shard {} is numbered anew", shard.0));
        self.sim.saw("mailboxes numbered anew");
    }

    /// Begins to move a shard: a copy while it serves. None: it is open nowhere, and only going on with the move helps.
    pub fn copy(&self, shard: ShardId) -> Option<u64> {
        let from = self.find(shard)?;
        let token = self.sim.bits();
        let store = self.at(shard, from)?.copied();
        self.places.lock().insert((shard, 1 - from), Place { state: State::Copying(token), store });
        Some(token)
    }

    /// The pause: from now on the source serves nobody. False: another mover has begun anew.
    pub fn close(&self, shard: ShardId, token: u64) -> bool {
        let Some(from) = self.find(shard) else { return false };
        let mut places = self.places.lock();
        let ours = places.get(&(shard, 1 - from)).is_some_and(|copy| copy.state == State::Copying(token));
        if let Some(source) = places.get_mut(&(shard, from)).filter(|_| ours) {
            source.state = State::Moved;
        }
        ours
    }

    /// Copies the rest and opens the copy. Also what a mover does that finds a move broken off in its pause.
    pub async fn open(&self, shard: ShardId) -> bool {
        let pair = {
            let places = self.places.lock();
            let is = |database: &usize, wanted: fn(State) -> bool| {
                places.get(&(shard, *database)).is_some_and(|place| wanted(place.state))
            };
            let from = (0..DATABASES).find(|database| is(database, |state| state == State::Moved));
            let to = (0..DATABASES).find(|database| is(database, |state| matches!(state, State::Copying(_))));
            let at = |database: usize| places.get(&(shard, database)).map(|place| place.store.clone());
            from.and_then(at).zip(to.and_then(at).zip(to))
        };
        let Some((source, (early, to))) = pair else { return false };
        let copy = if planted(Bug::MoveTorn) {
            let now = source.checkpoint(shard).await.unwrap_or_default();
            let torn = early.copied();
            self.skip(shard, &torn, now.offset).await;
            torn
        } else {
            source.copied()
        };
        let now = source.checkpoint(shard).await.unwrap_or_default();
        while copy.checkpoint(shard).await.is_ok_and(|there| there.owner_epoch <= now.owner_epoch) {
            drop(copy.acquire(shard).await);
        }
        self.backups.lock().remove(&shard);
        self.places.lock().insert((shard, to), Place { state: State::Open, store: copy });
        self.sim.note(|| format!("shard {} has moved to database {to} at {}", shard.0, now.offset));
        self.sim.saw("shard moved to another database");
        true
    }
}
