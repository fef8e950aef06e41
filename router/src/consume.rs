//! The router of one `messages` partition: reads accepted records, expands and links them, appends them to the mailbox partitions, and
//! remembers how far that is durable. One task, no memory but what is on its way; dropped at any instant, its successor says the same.
//!
//! Appends to different mailbox partitions do not wait for each other; those to one partition keep their order. One that fails takes its
//! partition back to the oldest record that is not reported, with pauses up to 5 s; meanwhile the others go on, until the window is full.

mod lane;

use std::collections::BTreeMap;
use std::future::{Future, poll_fn, ready};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use protocol::plant::{Bug, halt, planted};
use protocol::record::{Link, MailboxRecord, Record, Source, Undecodable};
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::RouterError;
use crate::chain::{Chain, RULES, link};
use crate::checkpoint::{Checkpoint, Links, Tracker, fingerprint};
use crate::expand::{ShardId, Shards, expand};
use crate::log::{Entry, Following, Log, LogError, Topic};
pub use lane::pause;
use lane::{Flight, Lane, PAUSE_MAX, Sending, Walk};

/// Source records begun and not yet durable everywhere.
const WINDOW_RECORDS: usize = 1024;
/// Bytes on their way.
const WINDOW_BYTES: usize = 64 * 1024 * 1024;
/// Source records in one read.
const READ_MAX: usize = 128;
/// A checkpoint is stored this long after there was something to store.
const CHECKPOINT_AFTER: Duration = Duration::from_secs(1);
/// So many records at the end of the checkpoints may be no checkpoints.
const CHECKPOINTS_PASSED: u64 = 64;

/// Why a record is left out though another build might read it.
const STEPPED_OVER: Undecodable = Undecodable::Field("(a person has stepped over it)");

/// Storage has met a hole: what it has last taken from this source, and where in its mailbox partition it saw that something is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rewind {
    /// The source partition.
    pub source: Source,
    /// Whose mailbox partition has the hole.
    pub shard: ShardId,
    /// The last link taken.
    pub high_water: Link,
    /// Where the hole was seen.
    pub hole: u64,
}

/// Something that was waited for.
enum Done {
    Read(Result<Vec<Entry>, LogError>),
    Appended(ShardId, Flight, Result<u64, LogError>),
    Rested(ShardId, u64),
    Walked(ShardId, Walk, Result<Vec<Entry>, LogError>),
    CheckpointDue,
    CheckpointStored(u64, Result<u64, LogError>),
}

type Waiting<'a> = Pin<Box<dyn Future<Output = Done> + Send + 'a>>;

struct Router<'a> {
    log: &'a dyn Log,
    source: Source,
    shards: Shards,
    /// The next source offset the main reader takes.
    next: u64,
    /// Links as of there.
    chain: Chain,
    tracker: Tracker,
    lanes: BTreeMap<ShardId, Lane>,
    bytes: usize,
    /// The newest fingerprint seen by the main reader.
    fingerprint: u64,
    reading: bool,
    read_failures: u32,
    checkpointing: bool,
    stored: u64,
    stopped: Option<RouterError>,
    waiting: FuturesUnordered<Waiting<'a>>,
}

/// Routes a partition until it cannot go on; dropped, it stops at once and nothing is lost. Requests to rewind come in by `rewinds`.
///
/// # Errors
/// Always ends with one: bytes this build cannot read, a log that was cut, or one that refuses for good.
pub async fn run(log: &dyn Log, source: Source, shards: Shards, mut rewinds: mpsc::Receiver<Rewind>) -> RouterError {
    let mut router = match start(log, source, shards).await {
        Ok(router) => router,
        Err(why) => return why,
    };
    let _following = Following::new(log, Topic::Messages, source.partition, router.next);
    let mut open = true;
    loop {
        router.read_on();
        router.checkpoint_on();
        if let Some(why) = router.finished() {
            return why;
        }
        tokio::select! {
            biased;
            Some(done) = router.waiting.next(), if !router.waiting.is_empty() => router.work_in(done).await,
            request = rewinds.recv(), if open => match request {
                Some(request) => router.rewind(request),
                None => open = false,
            },
            else => sleep(CHECKPOINT_AFTER).await,
        }
    }
}

/// The newest checkpoint, checked against the log it was made of.
async fn start(log: &dyn Log, source: Source, shards: Shards) -> Result<Router<'_>, RouterError> {
    let partition = source.partition;
    let checkpoint = patiently(|| newest_checkpoint(log, source)).await?;
    if checkpoint.rules != RULES {
        return Err(RouterError::Rules { partition, rules: checkpoint.rules });
    }
    let next = checkpoint.next_offset;
    if let Some(last) = next.checked_sub(1) {
        let cut = RouterError::LogCut { partition, offset: next };
        let same = patiently(|| async {
            match log.read(Topic::Messages, partition, last, 1).await {
                Ok(entries) if entries.is_empty() => Err(LogError::Unavailable("no record before the checkpoint".into()).into()),
                Ok(entries) => {
                    Ok(entries.iter().any(|entry| entry.offset == last && fingerprint(&entry.payload) == checkpoint.fingerprint))
                }
                // retention has taken it, which is no cut as long as the log goes on behind it
                Err(LogError::Refused(_)) if log.end(Topic::Messages, partition).await? >= next => Ok(true),
                Err(LogError::Refused(_)) => Err(cut.clone()),
                Err(why) => Err(why.into()),
            }
        });
        if !same.await? || checkpoint.epoch != source.epoch {
            return Err(cut);
        }
    }
    Ok(Router {
        log,
        source,
        shards,
        next,
        chain: checkpoint.chain.clone(),
        fingerprint: checkpoint.fingerprint,
        tracker: Tracker::new(checkpoint),
        lanes: BTreeMap::new(),
        bytes: 0,
        reading: false,
        read_failures: 0,
        checkpointing: false,
        stored: next,
        stopped: None,
        waiting: FuturesUnordered::new(),
    })
}

/// Tries until it works or can't ever.
async fn patiently<T, F: Future<Output = Result<T, RouterError>>>(mut step: impl FnMut() -> F) -> Result<T, RouterError> {
    let mut failures = 0;
    loop {
        match step().await {
            Err(RouterError::Log(LogError::Unavailable(_) | LogError::Unknown)) => {
                failures += 1;
                sleep(pause(failures)).await;
            }
            settled => return settled,
        }
    }
}

async fn newest_checkpoint(log: &dyn Log, source: Source) -> Result<Checkpoint, RouterError> {
    let partition = source.partition;
    let Some(offset) = log.end(Topic::RouterCheckpoints, partition).await?.checked_sub(1) else {
        return Ok(Checkpoint::start(source.epoch));
    };
    let mut last = None;
    for offset in (offset.saturating_sub(CHECKPOINTS_PASSED)..=offset).rev() {
        let entries = log.read(Topic::RouterCheckpoints, partition, offset, 1).await?;
        let newest = entries.first().ok_or_else(|| LogError::Unavailable("no checkpoint where the log ends".into()))?;
        match Checkpoint::decode(&newest.payload) {
            Ok(checkpoint) if checkpoint.epoch != 0 => return Ok(checkpoint),
            // an older one only makes more to be said again
            Ok(_) => {}
            Err(why) => last = last.or(Some(why)),
        }
        tracing::error!(topic = "router_checkpoints", partition, offset, "bytes that are no checkpoint are passed over");
        metrics::counter!("switchboard_quarantined_total", "topic" => "router_checkpoints").increment(1);
    }
    Err(RouterError::Undecodable { partition, offset, why: last.unwrap_or(Undecodable::Field("epoch")) })
}

impl<'a> Router<'a> {
    fn lane(&mut self, shard: ShardId) -> &mut Lane {
        self.lanes.entry(shard).or_default()
    }

    /// Reads on while the window has room.
    fn read_on(&mut self) {
        if self.reading || self.stopped.is_some() || self.tracker.outstanding() >= WINDOW_RECORDS || self.bytes >= WINDOW_BYTES {
            return;
        }
        self.reading = true;
        let (log, partition, next, failures) = (self.log, self.source.partition, self.next, self.read_failures);
        self.waiting.push(Box::pin(async move {
            if failures > 0 {
                sleep(pause(failures)).await;
            }
            Done::Read(log.read(Topic::Messages, partition, next, READ_MAX).await)
        }));
    }

    /// Stores the checkpoint soon after it has moved.
    fn checkpoint_on(&mut self) {
        if !self.checkpointing && self.checkpoint().next_offset > self.stored {
            self.checkpointing = true;
            self.waiting.push(Box::pin(async {
                sleep(CHECKPOINT_AFTER).await;
                Done::CheckpointDue
            }));
        }
    }

    fn checkpoint(&self) -> Checkpoint {
        if planted(Bug::CheckpointBeforeReports) {
            return Checkpoint {
                next_offset: self.next,
                fingerprint: self.fingerprint,
                chain: self.chain.clone(),
                ..self.tracker.done().clone()
            };
        }
        self.tracker.done().clone()
    }

    /// Why this ends now. Bytes that cannot be read let finish what is before them.
    fn finished(&mut self) -> Option<RouterError> {
        let unfinished = self.tracker.outstanding() > 0 || self.checkpointing;
        if unfinished && matches!(self.stopped, Some(RouterError::Undecodable { .. })) {
            return None;
        }
        self.stopped.take()
    }

    async fn work_in(&mut self, done: Done) {
        match done {
            Done::Read(result) => self.read(result).await,
            Done::Appended(shard, flight, result) => self.appended(shard, flight, result).await,
            Done::Rested(shard, life) => {
                self.lane(shard).resume(life);
                self.pump(shard).await;
            }
            Done::Walked(shard, walk, result) => self.walked(shard, walk, result).await,
            Done::CheckpointDue => {
                halt("router:checkpoint");
                let (log, partition, checkpoint) = (self.log, self.source.partition, self.checkpoint());
                self.waiting.push(Box::pin(async move {
                    let stored = log.append(Topic::RouterCheckpoints, partition, checkpoint.encode()).await;
                    Done::CheckpointStored(checkpoint.next_offset, stored)
                }));
            }
            Done::CheckpointStored(next, Ok(_)) => {
                self.stored = next;
                self.checkpointing = false;
            }
            // an older one stays in force: more is repeated after a crash
            Done::CheckpointStored(_, Err(_)) => self.checkpointing = false,
        }
    }

    /// What the main reader read.
    async fn read(&mut self, result: Result<Vec<Entry>, LogError>) {
        self.reading = false;
        let entries = match result {
            Ok(entries) => entries,
            Err(LogError::Refused(why)) => return self.stop(LogError::Refused(why).into()),
            Err(_) => {
                self.read_failures += 1;
                return;
            }
        };
        self.read_failures = 0;
        if !entries.is_empty() {
            halt("router:read");
        }
        for entry in entries {
            if entry.offset != self.next {
                // a gap: records were cut away under us
                return self.stop(RouterError::LogCut { partition: self.source.partition, offset: self.next });
            }
            match Record::decode(&entry.payload) {
                _ if self.tracker.done().skips(entry.offset) => self.quarantine(&entry, &STEPPED_OVER),
                Ok(record) => self.route(&record, &entry).await,
                Err(why) if why.is_garbage() => self.quarantine(&entry, &why),
                Err(why) => {
                    let (partition, offset) = (self.source.partition, entry.offset);
                    return self.stop(RouterError::Undecodable { partition, offset, why });
                }
            }
        }
    }

    /// Bytes that are nobody's record: left out by every router of this partition alike, and named. They stay where they are in the log.
    fn quarantine(&mut self, entry: &Entry, why: &Undecodable) {
        tracing::error!(topic = "messages", partition = self.source.partition, offset = entry.offset, %why, "bytes that are no record are left out");
        metrics::counter!("switchboard_quarantined_total", "topic" => "messages").increment(1);
        self.next = entry.offset + 1;
        self.fingerprint = fingerprint(&entry.payload);
        self.tracker.begin(entry.offset, self.fingerprint, Links::new());
    }

    fn stop(&mut self, why: RouterError) {
        tracing::error!(partition = self.source.partition, %why, "this source stops");
        metrics::counter!("switchboard_router_stops_total").increment(1);
        self.stopped.get_or_insert(why);
    }

    /// Expands one record and sends it on its way.
    async fn route(&mut self, record: &Record, entry: &Entry) {
        let mut links = Links::new();
        let expanded = expand(record, self.shards);
        for (shard, verdict) in expanded {
            let mailbox = self.chain.extend(self.source, entry.offset, (shard, verdict));
            links.push((shard, mailbox.link));
            let sending = Sending { offset: entry.offset, previous: mailbox.previous, payload: mailbox.encode() };
            self.bytes += sending.payload.len();
            self.lane(shard).push(sending);
        }
        self.next = entry.offset + 1;
        self.fingerprint = fingerprint(&entry.payload);
        let shards: Vec<_> = links.iter().map(|(shard, _)| *shard).collect();
        self.tracker.begin(entry.offset, self.fingerprint, links);
        metrics::counter!("switchboard_router_records_total").increment(1);
        for shard in shards {
            self.pump(shard).await;
        }
    }

    /// Makes every append a lane has room for. Each is polled once here, in order: so they stand in order.
    async fn pump(&mut self, shard: ShardId) {
        while let Some((flight, payload)) = self.lane(shard).send() {
            halt("router:appending");
            let mut append = append(self.log, shard, flight, payload);
            let first = poll_fn(|cx| Poll::Ready(append.as_mut().poll(cx))).await;
            self.waiting.push(match first {
                Poll::Ready(done) => Box::pin(ready(done)),
                Poll::Pending => append,
            });
        }
    }

    async fn appended(&mut self, shard: ShardId, flight: Flight, result: Result<u64, LogError>) {
        match result {
            Ok(offset) => {
                halt("router:appended");
                for passed in self.lane(shard).reported(flight, offset) {
                    self.bytes = self.bytes.saturating_sub(passed.payload.len());
                    self.tracker.reported(passed.offset);
                }
                self.walk_on(shard, Duration::ZERO);
                self.pump(shard).await;
            }
            Err(LogError::Refused(why)) => self.stop(LogError::Refused(why).into()),
            Err(why) => {
                let Some(pause) = self.lane(shard).failed(flight) else { return };
                let life = self.lane(shard).life();
                tracing::warn!(partition = self.source.partition, shard = shard.0, %why, "an append failed: its lane goes back");
                metrics::counter!("switchboard_router_appends_failed_total").increment(1);
                self.waiting.push(Box::pin(async move {
                    sleep(pause).await;
                    Done::Rested(shard, life)
                }));
            }
        }
    }

    /// Storage asks for what it has missed.
    fn rewind(&mut self, request: Rewind) {
        let Rewind { source, shard, high_water, hole } = request;
        let main = (self.next, self.chain.at(shard));
        let begun = source == self.source && !self.lane(shard).answers(hole) && self.lane(shard).rewind(high_water, main);
        let what = if begun { "begun" } else { "ignored" };
        metrics::counter!("switchboard_router_rewinds_total", "what" => what).increment(1);
        if begun {
            tracing::warn!(
                partition = source.partition,
                shard = shard.0,
                from = high_water.next_offset,
                hole,
                "rewinds for a hole"
            );
            self.walk_on(shard, Duration::ZERO);
        }
    }

    /// The second reader of a lane reads on, after a rest.
    fn walk_on(&mut self, shard: ShardId, rest: Duration) {
        let (log, partition) = (self.log, self.source.partition);
        let Some(walk) = self.lane(shard).walk_on() else { return };
        let max = usize::try_from(walk.until.saturating_sub(walk.next)).unwrap_or(READ_MAX).clamp(1, READ_MAX);
        self.waiting.push(Box::pin(async move {
            if !rest.is_zero() {
                sleep(rest).await;
            }
            Done::Walked(shard, walk, log.read(Topic::Messages, partition, walk.next, max).await)
        }));
    }

    /// What the second reader read: made again for this shard alone.
    async fn walked(&mut self, shard: ShardId, walk: Walk, result: Result<Vec<Entry>, LogError>) {
        let entries = match result {
            Ok(entries) => entries,
            // retention has taken what is to be said again: what became of it a person must find out
            Err(LogError::Refused(why)) => {
                return self.stop(LogError::Refused(format!("a rewind for shard {}: {why}", shard.0)).into());
            }
            Err(why) => {
                tracing::warn!(partition = self.source.partition, shard = shard.0, %why, "the rewind's read failed");
                self.lane(shard).walk_failed();
                return self.walk_on(shard, PAUSE_MAX);
            }
        };
        match self.remake(shard, walk, entries) {
            Ok((made, walk)) => {
                if self.lane(shard).walked(made, walk) && walk.link != walk.arrive {
                    // storage will see a wrong digest and let this source stand
                    tracing::error!(
                        partition = self.source.partition,
                        shard = shard.0,
                        "a rewind arrived at another link than the main reader's"
                    );
                    metrics::counter!("switchboard_router_forks_total").increment(1);
                }
            }
            Err(why) => return self.stop(why),
        }
        self.walk_on(shard, Duration::ZERO);
        self.pump(shard).await;
    }

    fn remake(&self, shard: ShardId, mut walk: Walk, entries: Vec<Entry>) -> Result<(Vec<Sending>, Walk), RouterError> {
        let partition = self.source.partition;
        let mut made = Vec::new();
        for entry in entries {
            if entry.offset != walk.next {
                return Err(RouterError::LogCut { partition, offset: walk.next });
            }
            walk.next = entry.offset + 1;
            let record = match Record::decode(&entry.payload) {
                _ if self.tracker.done().skips(entry.offset) => continue,
                Ok(record) => record,
                Err(why) if why.is_garbage() => continue,
                Err(why) => return Err(RouterError::Undecodable { partition, offset: entry.offset, why }),
            };
            let mine = expand(&record, self.shards).into_iter().find(|(at, _)| *at == shard);
            let Some((_, verdict)) = mine else { continue };
            let previous = walk.link;
            walk.link = link(previous, entry.offset, &verdict);
            let mailbox = MailboxRecord { source: self.source, link: walk.link, previous, verdict };
            made.push(Sending { offset: entry.offset, previous, payload: mailbox.encode() });
        }
        Ok((made, walk))
    }
}

fn append(log: &dyn Log, shard: ShardId, flight: Flight, payload: Bytes) -> Waiting<'_> {
    Box::pin(async move { Done::Appended(shard, flight, log.append(Topic::Mailbox, shard.0, payload).await) })
}
