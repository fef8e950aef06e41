//! How far a source partition is done with: the highest offset that, *with all before it*, is reported durable in every mailbox partition it
//! goes to. Pure. And the stored form of that place: a record in [`crate::log::Topic::RouterCheckpoints`], never anything that may forget.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use protocol::record::{Link, Undecodable};
use smallvec::SmallVec;
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use crate::RouterError;
use crate::chain::{Chain, RULES};
use crate::expand::ShardId;
use crate::log::{Log, LogError, Topic};

/// Links one source record made; a direct message makes one or two.
pub type Links = SmallVec<[(ShardId, Link); 2]>;

/// A place in a source partition, with all that is needed to go on there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Incarnation of the log.
    pub epoch: u16,
    /// The next offset to be worked in.
    pub next_offset: u64,
    /// Fingerprint of the record before it, so that a log that was cut and refilled is noticed. 0 at the beginning.
    pub fingerprint: u64,
    /// Rules in force there.
    pub rules: u32,
    /// The newest link to each shard.
    pub chain: Chain,
    /// Offsets that a person has stepped over: records that no build could read. Left out by whoever reads them, also in a rewind.
    pub skipped: BTreeSet<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireLink {
    #[prost(uint32, tag = "1")]
    shard: u32,
    #[prost(uint64, tag = "2")]
    next_offset: u64,
    #[prost(fixed64, tag = "3")]
    digest: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireCheckpoint {
    #[prost(uint32, tag = "1")]
    epoch: u32,
    #[prost(uint64, tag = "2")]
    next_offset: u64,
    #[prost(fixed64, tag = "3")]
    fingerprint: u64,
    #[prost(uint32, tag = "4")]
    rules: u32,
    #[prost(message, repeated, tag = "5")]
    links: Vec<WireLink>,
    #[prost(uint64, repeated, tag = "6")]
    skipped: Vec<u64>,
}

/// Offsets stepped over that are remembered; the oldest is forgotten. A rewind seldom goes back as far as one of them.
const SKIPPED_MAX: usize = 1024;

impl Checkpoint {
    /// The beginning of a partition.
    pub fn start(epoch: u16) -> Self {
        Self { epoch, rules: RULES, ..Self::default() }
    }

    /// The stored form.
    pub fn encode(&self) -> Bytes {
        let links = self.chain.links().map(|(shard, link)| WireLink {
            shard: shard.0.into(),
            next_offset: link.next_offset,
            digest: link.digest,
        });
        let wire = WireCheckpoint {
            epoch: self.epoch.into(),
            next_offset: self.next_offset,
            fingerprint: self.fingerprint,
            rules: self.rules,
            links: links.collect(),
            skipped: self.skipped.iter().copied().collect(),
        };
        wire.encode_to_vec().into()
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`Undecodable`] when the bytes are no checkpoint this build knows.
    pub fn decode(bytes: &[u8]) -> Result<Self, Undecodable> {
        let wire = WireCheckpoint::decode(bytes)?;
        let short = |number: u32, name| u16::try_from(number).map_err(|_| Undecodable::Field(name));
        let link = |link: WireLink| {
            let shard = ShardId(short(link.shard, "shard")?);
            Ok::<_, Undecodable>((shard, Link { next_offset: link.next_offset, digest: link.digest }))
        };
        Ok(Self {
            epoch: short(wire.epoch, "epoch")?,
            next_offset: wire.next_offset,
            fingerprint: wire.fingerprint,
            rules: wire.rules,
            chain: wire.links.into_iter().map(link).collect::<Result<_, _>>()?,
            skipped: wire.skipped.into_iter().collect(),
        })
    }

    /// Whether a person has stepped over the record at this offset.
    pub fn skips(&self, offset: u64) -> bool {
        self.skipped.contains(&offset)
    }

    /// Steps over the record at this offset.
    pub fn skip(&mut self, offset: u64) {
        self.skipped.insert(offset);
        while self.skipped.len() > SKIPPED_MAX {
            self.skipped.pop_first();
        }
    }
}

/// Fingerprint of a source record's bytes.
pub fn fingerprint(payload: &[u8]) -> u64 {
    xxh3_64(payload)
}

/// The newest stored checkpoint of each router, asked for at most so often: what the storage owners of one process compare their high-waters
/// with, and by what it is told how far a router is. An older answer says less, never more.
pub struct Newest {
    log: Arc<dyn Log>,
    fresh: Duration,
    read: Vec<tokio::sync::Mutex<Option<Known>>>,
}

/// What was read last.
struct Known {
    at: Instant,
    /// The end of the partition of checkpoints then: unchanged, there is no newer one.
    end: u64,
    checkpoint: Option<Checkpoint>,
}

impl Newest {
    /// An answer serves for this long, if nothing else is asked for.
    const FRESH: Duration = Duration::from_secs(30);

    /// Of the routers of so many source partitions.
    pub fn new(log: Arc<dyn Log>, sources: u16) -> Self {
        Self { log, fresh: Self::FRESH, read: (0..sources).map(|_| tokio::sync::Mutex::default()).collect() }
    }

    /// An answer serves for so long.
    #[must_use]
    pub const fn fresh_for(mut self, fresh: Duration) -> Self {
        self.fresh = fresh;
        self
    }

    /// How many source partitions there are.
    pub fn sources(&self) -> u16 {
        u16::try_from(self.read.len()).unwrap_or(u16::MAX)
    }

    /// The newest checkpoint of a source partition, if there is one that can be read now.
    pub async fn of(&self, partition: u16) -> Option<Checkpoint> {
        self.read(partition).await.ok().flatten()
    }

    /// The same; nothing: none was ever stored.
    ///
    /// # Errors
    /// When the log does not answer, or its newest record is no checkpoint.
    pub async fn read(&self, partition: u16) -> Result<Option<Checkpoint>, RouterError> {
        let none = || LogError::Refused(format!("there is no partition {partition} of messages"));
        let mut read = self.read.get(usize::from(partition)).ok_or_else(none)?.lock().await;
        if let Some(known) = &*read
            && known.at.elapsed() < self.fresh
        {
            return Ok(known.checkpoint.clone());
        }
        let end = self.log.end(Topic::RouterCheckpoints, partition).await?;
        if let Some(known) = &mut *read
            && known.end == end
        {
            known.at = Instant::now();
            return Ok(known.checkpoint.clone());
        }
        let checkpoint = match end.checked_sub(1) {
            None => None,
            Some(newest) => {
                let entries = self.log.read(Topic::RouterCheckpoints, partition, newest, 1).await?;
                let nothing = || LogError::Unavailable("no checkpoint where the log ends".into());
                let bytes = &entries.first().ok_or_else(nothing)?.payload;
                let decoded = Checkpoint::decode(bytes);
                Some(decoded.map_err(|why| RouterError::Undecodable { partition, offset: newest, why })?)
            }
        };
        *read = Some(Known { at: Instant::now(), end, checkpoint: checkpoint.clone() });
        Ok(checkpoint)
    }
}

/// A source record whose appends are not all reported.
#[derive(Debug)]
struct Outstanding {
    offset: u64,
    fingerprint: u64,
    links: Links,
    unreported: usize,
}

/// Follows the reports of one source partition. Bounded by whoever begins records: it asks [`Tracker::outstanding`] first.
#[derive(Debug)]
pub struct Tracker {
    done: Checkpoint,
    outstanding: VecDeque<Outstanding>,
}

impl Tracker {
    /// Goes on from a checkpoint.
    pub const fn new(done: Checkpoint) -> Self {
        Self { done, outstanding: VecDeque::new() }
    }

    /// Records begun and not passed.
    pub fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    /// The checkpoint: everything before it is durable in every mailbox partition it goes to.
    pub const fn done(&self) -> &Checkpoint {
        &self.done
    }

    /// The record at `offset` was expanded into these links, one append each. Offsets come ascending.
    pub fn begin(&mut self, offset: u64, fingerprint: u64, links: Links) {
        debug_assert!(self.outstanding.back().map_or(self.done.next_offset, |last| last.offset + 1) <= offset, "offsets ascend");
        let unreported = links.len();
        self.outstanding.push_back(Outstanding { offset, fingerprint, links, unreported });
        self.pass();
    }

    /// One append of the record at `offset` is reported durable; each is told once.
    pub fn reported(&mut self, offset: u64) {
        if let Ok(at) = self.outstanding.binary_search_by_key(&offset, |record| record.offset) {
            let record = &mut self.outstanding[at];
            record.unreported = record.unreported.saturating_sub(1);
        }
        self.pass();
    }

    /// Passes what is reported with all before it.
    fn pass(&mut self) {
        while self.outstanding.front().is_some_and(|record| record.unreported == 0) {
            let Some(record) = self.outstanding.pop_front() else { return };
            self.done.next_offset = record.offset + 1;
            self.done.fingerprint = record.fingerprint;
            for (shard, link) in record.links {
                self.done.chain.set(shard, link);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn links(offset: u64, count: u16) -> Links {
        (0..count)
            .map(|shard| (ShardId(shard), Link { next_offset: offset + 1, digest: offset * 100 + u64::from(shard) }))
            .collect()
    }

    #[test]
    fn nothing_passes_a_record_that_is_not_reported() {
        let mut tracker = Tracker::new(Checkpoint::start(1));
        tracker.begin(0, 10, links(0, 2));
        tracker.begin(1, 11, links(1, 1));
        tracker.reported(1);
        tracker.reported(0);
        assert_eq!(tracker.done(), &Checkpoint::start(1), "one of the two appends of the first is missing");
        tracker.reported(0);
        assert_eq!((tracker.done().next_offset, tracker.done().fingerprint, tracker.outstanding()), (2, 11, 0));
        assert_eq!(tracker.done().chain.at(ShardId(0)).next_offset, 2);
        assert_eq!(tracker.done().chain.at(ShardId(1)).next_offset, 1);
    }

    #[test]
    fn a_record_for_nobody_passes_by_itself() {
        let mut tracker = Tracker::new(Checkpoint::start(1));
        tracker.begin(0, 10, Links::new());
        assert_eq!(tracker.done().next_offset, 1);
    }

    proptest! {
        /// In whatever order reports come: the checkpoint is exactly the run of fully reported records from the start, and its chain is theirs.
        #[test]
        fn the_checkpoint_is_the_run_of_reported_records(
            counts in proptest::collection::vec(0..4_u16, 1..30),
            order in proptest::collection::vec(any::<prop::sample::Index>(), 0..60),
        ) {
            let mut tracker = Tracker::new(Checkpoint::start(1));
            let mut waiting: Vec<u64> = Vec::new();
            for (offset, count) in (0_u64..).zip(&counts) {
                tracker.begin(offset, offset + 7, links(offset, *count));
                waiting.extend(std::iter::repeat_n(offset, usize::from(*count)));
            }
            for index in order {
                if waiting.is_empty() { break }
                tracker.reported(waiting.swap_remove(index.index(waiting.len())));
                let run = (0..counts.len() as u64).take_while(|offset| !waiting.contains(offset)).count();
                prop_assert_eq!(tracker.done().next_offset, run as u64);
                let mut chain = Chain::default();
                for (offset, count) in (0_u64..).zip(&counts[..run]) {
                    for (shard, link) in links(offset, *count) { chain.set(shard, link) }
                }
                prop_assert_eq!(&tracker.done().chain, &chain);
                prop_assert_eq!(tracker.outstanding(), counts.len() - run);
            }
        }

        #[test]
        fn the_stored_form_comes_back(epoch: u16, offset: u64, print: u64, entries in proptest::collection::btree_map(any::<u16>(), any::<(u64, u64)>(), 0..20), skipped in proptest::collection::btree_set(any::<u64>(), 0..5)) {
            let chain = entries.into_iter().map(|(shard, (next_offset, digest))| (ShardId(shard), Link { next_offset, digest })).collect();
            let checkpoint = Checkpoint { epoch, next_offset: offset, fingerprint: print, rules: RULES, chain, skipped };
            prop_assert_eq!(Checkpoint::decode(&checkpoint.encode()).unwrap(), checkpoint);
        }

        #[test]
        fn damaged_bytes_are_an_error_not_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Checkpoint::decode(&bytes);
        }
    }
}
