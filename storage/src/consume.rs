//! The storage owner of one virtual shard in a cluster: reads the shard's mailbox log from its checkpoint, takes each link of each chain once,
//! gives every mailbox its next seq, commits with a compare-and-set of the checkpoint; then looks up where the owners are, then pushes.
//!
//! A record before which something is missing is dropped, counted, and its source asked to rewind: the replay comes behind it in the same log,
//! so nothing ever waits in place. One task; fenced, it drops everything it has in memory and ends.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use protocol::UserId;
use protocol::plant::{Bug, halt, held, planted};
use protocol::record::{MailboxRecord, Source};
use router::RouterError;
use router::chain::{HighWaters, Judgement};
use router::checkpoint::{Newest, fingerprint};
use router::consume::{Rewind, pause};
use router::expand::ShardId;
use router::log::{Entry, Following, Log, LogError, Topic};
use router::registry::{NodeId, Nodes, Registry};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::StorageError;
use crate::push::{Deliver, Push};
use crate::sequence::{Arrival, Placed, Plan, keys_of, owners_of, plan, refusal_keys_of};
use crate::store::{Acquired, Checkpoint, Commit, Head, HighWater, KeyOf, KeyRow, Row, Store, StoreError};

/// Records in one batch.
const BATCH_MAX: usize = 256;
/// The registry is waited for this long; without it, devices hear of the event by the comparison of heads.
const REGISTRY_WAIT: Duration = Duration::from_millis(200);
/// How often the routers' chains are compared with the high-waters, while the log has nothing more.
const AUDIT_EVERY: Duration = Duration::from_secs(60);
/// How often an owner that has nothing to do looks whether the store is as it left it. A database that has lost its newest commits (a copy was
/// promoted, a backup put back) tells nobody: the next commit would meet it, but there may be none for long.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Keys are asked for before each batch for so long after a repeat was met; else the store finds repeats while it commits.
const ASK_FIRST: Duration = Duration::from_secs(1);
/// Heads kept in memory; all are forgotten when there are more.
const HEADS_MAX: usize = 8_192;

/// What an owner stands on.
#[derive(Clone)]
pub struct Ports {
    /// The log it reads.
    pub log: Arc<dyn Log>,
    /// Where mailboxes are kept.
    pub store: Arc<dyn Store>,
    /// Who is where.
    pub registry: Arc<dyn Registry>,
    /// The way to the gateways.
    pub deliver: Arc<dyn Deliver>,
    /// The way back to the routers. A request that does not fit is dropped: the next hole or the audit asks again.
    pub rewinds: mpsc::Sender<Rewind>,
    /// The newest checkpoint of each router, shared by all owners of a process.
    pub sent: Arc<Newest>,
}

struct Owner<'a> {
    shard: ShardId,
    ports: &'a Ports,
    checkpoint: Checkpoint,
    stream_epoch: u64,
    high_waters: HighWaters,
    /// Heads as of the last commit; nobody else writes them.
    heads: HashMap<UserId, Head>,
    ask_until: Option<Instant>,
    audited: Instant,
    looked: Instant,
}

/// Where the owners of new rows are.
type Places = BTreeMap<UserId, Nodes>;

/// What a batch of records comes to, before it is sequenced.
#[derive(Debug, Default)]
struct Judged {
    arrivals: Vec<Arrival>,
    moved: BTreeSet<Source>,
    /// The newest hole of each source: the place it was seen and the link that was dropped there.
    holes: BTreeMap<Source, (u64, u64)>,
}

/// Takes the shard and works in its log until it cannot go on. Dropped at any instant, nothing is lost.
///
/// # Errors
/// Always ends with one: fenced by another owner, or stored bytes that this build cannot read.
pub async fn run(shard: ShardId, ports: &Ports) -> StorageError {
    match own(shard, ports).await {
        Err(why) => why,
        Ok(never) => match never {},
    }
}

async fn own(shard: ShardId, ports: &Ports) -> Result<std::convert::Infallible, StorageError> {
    let taken = patiently(|| ports.store.acquire(shard)).await?;
    tracing::debug!(
        shard = shard.0,
        owner_epoch = taken.checkpoint.owner_epoch,
        offset = taken.checkpoint.offset,
        "takes a shard"
    );
    same_log(shard, &*ports.log, &taken).await?;
    let _following = Following::new(&*ports.log, Topic::Mailbox, shard.0, taken.checkpoint.offset);
    let mut owner = Owner {
        shard,
        ports,
        checkpoint: taken.checkpoint,
        stream_epoch: taken.stream_epoch,
        high_waters: taken.high_waters.into_iter().map(|one| (one.source, one.link)).collect(),
        heads: HashMap::new(),
        ask_until: None,
        audited: Instant::now(),
        looked: Instant::now(),
    };
    loop {
        let entries = owner.read().await?;
        if entries.is_empty() {
            owner.look().await?;
            owner.audit().await;
        } else {
            owner.work_in(entries).await?;
        }
    }
}

/// Looks whether the log is the one the checkpoint was made of: the record before it must be the same one.
async fn same_log(shard: ShardId, log: &dyn Log, taken: &Acquired) -> Result<(), StorageError> {
    let offset = taken.checkpoint.offset;
    let Some(last) = offset.checked_sub(1) else { return Ok(()) };
    let cut = || RouterError::LogCut { partition: shard.0, offset }.into();
    let mut failures = 0;
    loop {
        match log.read(Topic::Mailbox, shard.0, last, 1).await {
            Ok(entries) => match entries.first() {
                Some(entry) if entry.offset == last && fingerprint(&entry.payload) == taken.fingerprint => return Ok(()),
                Some(_) => return Err(cut()),
                // nothing there yet: it ends before the checkpoint, or it is slow
                None => {
                    if log.end(Topic::Mailbox, shard.0).await.is_ok_and(|end| end < offset) {
                        return Err(cut());
                    }
                }
            },
            // retention has taken the record, which is no cut as long as the log goes on behind it
            Err(LogError::Refused(_)) => match log.end(Topic::Mailbox, shard.0).await {
                Ok(end) if end >= offset => return Ok(()),
                Ok(_) => return Err(cut()),
                Err(_) => {}
            },
            Err(_) => {}
        }
        failures += 1;
        sleep(pause(failures)).await;
    }
}

/// Reads the store until it answers.
async fn patiently<T, F: Future<Output = Result<T, StoreError>>>(mut read: impl FnMut() -> F) -> Result<T, StoreError> {
    let mut failures = 0;
    loop {
        match read().await {
            Err(StoreError::Unavailable(_) | StoreError::Unknown) => {
                failures += 1;
                sleep(pause(failures)).await;
            }
            settled => return settled,
        }
    }
}

impl Owner<'_> {
    /// The next records of the shard's log; none: there are none yet.
    async fn read(&self) -> Result<Vec<Entry>, StorageError> {
        let mut failures = 0;
        loop {
            match self.ports.log.read(Topic::Mailbox, self.shard.0, self.checkpoint.offset, BATCH_MAX).await {
                Ok(entries) => return Ok(entries),
                Err(LogError::Refused(why)) => return Err(RouterError::Log(LogError::Refused(why)).into()),
                Err(_) => {
                    failures += 1;
                    sleep(pause(failures)).await;
                }
            }
        }
    }

    /// One batch: judged, sequenced, committed, pushed.
    async fn work_in(&mut self, entries: Vec<Entry>) -> Result<(), StorageError> {
        let (judged, readable) = self.judge(&entries);
        if let Some(last) = readable.checked_sub(1) {
            let sources = judged.moved.iter();
            let commit = Commit {
                expect: self.checkpoint,
                next_offset: self.checkpoint.offset + readable as u64,
                fingerprint: fingerprint(&entries[last].payload),
                high_waters: sources.map(|source| HighWater { source: *source, link: self.high_waters.at(*source) }).collect(),
                ..Commit::default()
            };
            let (rows, places) = self.write(judged.arrivals, commit).await?;
            halt("storage:committed");
            let held = held("storage:unpushed");
            if held > 0 {
                sleep(Duration::from_millis(held)).await;
            }
            let places = match places {
                Some(places) => places,
                None => self.look_up(&rows).await,
            };
            self.push(rows, &places);
            halt("storage:pushed");
            self.ask(&judged.holes);
        }
        match entries.get(readable) {
            None => Ok(()),
            Some(bad) => Err(self.unreadable(bad)),
        }
    }

    /// Sequences and commits. Usually nothing is a repeat, so the store is not asked for keys: it refuses the commit when one is known, and then
    /// they are asked for, and for a while before each batch.
    async fn write(&mut self, arrivals: Vec<Arrival>, commit: Commit) -> Result<(Vec<Row>, Option<Places>), StoreError> {
        loop {
            let asks = self.ask_until.is_some_and(|until| Instant::now() < until);
            let (plan, heads) = self.sequence(arrivals.clone(), asks).await?;
            let full = Commit { rows: plan.rows.clone(), keys: plan.keys, ..commit.clone() };
            halt("storage:planned");
            let too_early = if planted(Bug::LookUpBeforeCommit) { Some(self.look_up(&plan.rows).await) } else { None };
            match self.commit(full).await {
                Ok(()) => {
                    count(&plan.placed);
                    self.remember(heads);
                    return Ok((plan.rows, too_early));
                }
                // asked, and still: somebody else writes
                Err(StoreError::Conflict(_)) if asks => return Err(self.fenced()),
                Err(StoreError::Conflict(_)) => self.ask_until = Some(Instant::now() + ASK_FIRST),
                Err(why) => return Err(why),
            }
        }
    }

    fn remember(&mut self, heads: HashMap<UserId, Head>) {
        if self.heads.len() + heads.len() > HEADS_MAX {
            self.heads.clear();
        }
        self.heads.extend(heads);
    }

    /// Judges each record by the chain. Returns also how many could be read: all, but for stored bytes that are no record.
    fn judge(&mut self, entries: &[Entry]) -> (Judged, usize) {
        let mut judged = Judged::default();
        for (readable, entry) in entries.iter().enumerate() {
            if entry.offset != self.checkpoint.offset + readable as u64 {
                return (judged, readable);
            }
            let record = match MailboxRecord::decode(&entry.payload) {
                Ok(record) => record,
                // left out; was it a router's, then the chain has a hole now and it is asked for
                Err(why) if why.is_garbage() => {
                    tracing::error!(topic = "mailbox", partition = self.shard.0, offset = entry.offset, %why, "bytes that are no record are left out");
                    metrics::counter!("switchboard_quarantined_total", "topic" => "mailbox").increment(1);
                    continue;
                }
                Err(_) => return (judged, readable),
            };
            let source = record.source;
            let what = match self.high_waters.judge(&record) {
                Judgement::Take => {
                    judged.moved.insert(source);
                    judged.arrivals.push(Arrival::new(record.position(), record.verdict));
                    "taken"
                }
                Judgement::Repeat => "repeat",
                Judgement::Hole { .. } => {
                    judged.holes.insert(source, (entry.offset, record.link.next_offset));
                    "hole"
                }
                Judgement::WrongDigest => {
                    tracing::error!(
                        shard = self.shard.0,
                        ?source,
                        offset = entry.offset,
                        "wrong digest: this source stands here"
                    );
                    "wrong_digest"
                }
            };
            metrics::counter!("switchboard_storage_records_total", "what" => what).increment(1);
        }
        (judged, entries.len())
    }

    /// Gives each mailbox its next seq; leaves out what is known, as far as it was asked for. Returns also the heads as they will be.
    async fn sequence(&self, arrivals: Vec<Arrival>, asks: bool) -> Result<(Plan, HashMap<UserId, Head>), StoreError> {
        let mut known = HashMap::new();
        if asks {
            self.keys(keys_of(&arrivals), &mut known).await?;
            self.keys(refusal_keys_of(&arrivals, &known), &mut known).await?;
        }
        let mut heads = HashMap::new();
        let mut unknown = Vec::new();
        for owner in owners_of(&arrivals) {
            match self.heads.get(&owner) {
                Some(head) => drop(heads.insert(owner, *head)),
                None => unknown.push(owner),
            }
        }
        if !unknown.is_empty() {
            let read = patiently(|| self.ports.store.heads(self.shard, &unknown)).await?;
            heads.extend(unknown.into_iter().zip(read));
        }
        let plan = plan(arrivals, &mut known, &mut heads);
        Ok((plan, heads))
    }

    async fn keys(&self, asked: Vec<KeyOf>, known: &mut HashMap<KeyOf, KeyRow>) -> Result<(), StoreError> {
        if asked.is_empty() {
            return Ok(());
        }
        let rows = patiently(|| self.ports.store.keys(self.shard, &asked)).await?;
        known.extend(asked.into_iter().zip(rows).filter_map(|(key, row)| row.map(|row| (key, row))));
        Ok(())
    }

    /// Commits, once. What became of a commit whose outcome is unknown is read, never guessed: it may also come late, and then the same
    /// commit, tried again, meets it.
    async fn commit(&mut self, commit: Commit) -> Result<(), StoreError> {
        let done = Checkpoint { offset: commit.next_offset, ..self.checkpoint };
        let (mut failures, mut unknown) = (0, false);
        loop {
            let mut committing = self.ports.store.commit(self.shard, commit.clone());
            // the request is on its way
            let first = poll_fn(|cx| Poll::Ready(committing.as_mut().poll(cx))).await;
            halt("storage:committing");
            let committed = match first {
                Poll::Ready(committed) => committed,
                Poll::Pending => committing.await,
            };
            let what = match committed {
                Ok(()) => "done",
                Err(StoreError::Unknown) if planted(Bug::OutcomeGuessed) => "done",
                Err(StoreError::Unknown) => {
                    unknown = true;
                    match patiently(|| self.ports.store.checkpoint(self.shard)).await? {
                        now if now == done => "unknown_done",
                        now if now == self.checkpoint => "unknown_again",
                        _ => return Err(self.fenced()),
                    }
                }
                Err(StoreError::Fenced(_)) if unknown => match patiently(|| self.ports.store.checkpoint(self.shard)).await? {
                    now if now == done => "unknown_late",
                    _ => return Err(self.fenced()),
                },
                Err(StoreError::Fenced(_)) => return Err(self.fenced()),
                Err(why @ StoreError::Conflict(_)) => return Err(why),
                Err(StoreError::Unavailable(why)) => {
                    tracing::warn!(shard = self.shard.0, why, "a commit is tried again");
                    "unavailable"
                }
                Err(why) => return Err(why),
            };
            metrics::counter!("switchboard_storage_commits_total", "what" => what).increment(1);
            if !matches!(what, "unknown_again" | "unavailable") {
                self.checkpoint = done;
                return Ok(());
            }
            failures += 1;
            sleep(pause(failures)).await;
        }
    }

    fn fenced(&self) -> StoreError {
        metrics::counter!("switchboard_storage_commits_total", "what" => "fenced").increment(1);
        StoreError::Fenced(self.shard.0)
    }

    /// Where the owners of new rows are. Without an answer nobody is pushed to.
    async fn look_up(&self, rows: &[Row]) -> Places {
        let owners: Vec<_> = rows.iter().map(|row| row.owner).collect::<BTreeSet<_>>().into_iter().collect();
        if owners.is_empty() {
            return BTreeMap::new();
        }
        let found = timeout(REGISTRY_WAIT, self.ports.registry.nodes(&owners)).await;
        let Ok(Ok(nodes)) = found else {
            metrics::counter!("switchboard_drops_total", "what" => "push", "why" => "registry").increment(rows.len() as u64);
            return BTreeMap::new();
        };
        owners.into_iter().zip(nodes).collect()
    }

    /// Hands the events to the nodes, in the order of their rows.
    fn push(&self, rows: Vec<Row>, places: &Places) {
        let mut by_node: BTreeMap<NodeId, Vec<Push>> = BTreeMap::new();
        for Row { owner, event } in rows {
            for node in places.get(&owner).into_iter().flatten() {
                by_node.entry(*node).or_default().push(Push { owner, epoch: self.stream_epoch, event: event.clone() });
            }
        }
        let wakes: Vec<_> = by_node.into_iter().map(|(node, pushes)| self.ports.deliver.push(node, pushes)).collect();
        drop(wakes);
    }

    /// Asks for what is still missing: a hole may have been filled by what came behind it in the same batch.
    fn ask(&self, holes: &BTreeMap<Source, (u64, u64)>) {
        for (source, (hole, dropped)) in holes {
            let high_water = self.high_waters.at(*source);
            if high_water.next_offset < *dropped {
                self.ask_for(Rewind { source: *source, shard: self.shard, high_water, hole: *hole });
            }
        }
    }

    fn ask_for(&self, rewind: Rewind) {
        tracing::warn!(shard = self.shard.0, source = ?rewind.source, hole = rewind.hole, "a hole: asks for a rewind");
        let what = if self.ports.rewinds.try_send(rewind).is_ok() { "asked" } else { "dropped" };
        metrics::counter!("switchboard_storage_rewinds_total", "what" => what).increment(1);
    }

    /// The log has nothing more: the store must say what this owner has committed.
    async fn look(&mut self) -> Result<(), StoreError> {
        if self.looked.elapsed() < LOOK_EVERY {
            return Ok(());
        }
        self.looked = Instant::now();
        match self.ports.store.checkpoint(self.shard).await {
            Ok(stored) if stored != self.checkpoint => Err(self.fenced()),
            // known or not: it is asked again
            _ => Ok(()),
        }
    }

    /// The log has nothing more: what the routers say they have sent must be here. What they have sent last may be missing, and then no
    /// later record tells of the hole.
    async fn audit(&mut self) {
        if self.audited.elapsed() < AUDIT_EVERY {
            return;
        }
        self.audited = Instant::now();
        let mut behind = Vec::new();
        for partition in 0..self.ports.sent.sources() {
            let Some(sent) = self.ports.sent.of(partition).await else { continue };
            let source = Source { partition, epoch: sent.epoch };
            let high_water = self.high_waters.at(source);
            if sent.chain.at(self.shard).next_offset > high_water.next_offset {
                behind.push((source, high_water));
            }
        }
        // asked after the routers: what they counted as durable lies before this end
        if behind.is_empty() || self.ports.log.end(Topic::Mailbox, self.shard.0).await != Ok(self.checkpoint.offset) {
            return;
        }
        // seen at the newest record: so a request from before a rewind is known to be older than it
        let hole = self.checkpoint.offset.saturating_sub(1);
        for (source, high_water) in behind {
            metrics::counter!("switchboard_storage_audits_behind_total").increment(1);
            self.ask_for(Rewind { source, shard: self.shard, high_water, hole });
        }
    }

    /// Why a record of the log ends this owner.
    fn unreadable(&self, entry: &Entry) -> StorageError {
        let (partition, expected) = (self.shard.0, self.checkpoint.offset);
        match MailboxRecord::decode(&entry.payload) {
            Err(why) => RouterError::Undecodable { partition, offset: entry.offset, why }.into(),
            Ok(_) => RouterError::LogCut { partition, offset: expected }.into(),
        }
    }
}

fn count(placed: &[Placed]) {
    for placed in placed {
        let what = match placed {
            Placed::New => "new",
            Placed::Repeat => "repeat",
            Placed::Reused => "reused",
        };
        metrics::counter!("switchboard_storage_messages_total", "what" => what).increment(1);
    }
}

#[cfg(test)]
mod tests;
