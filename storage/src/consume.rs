//! The storage owner of one virtual shard in a cluster: reads the shard's mailbox log from its checkpoint, takes each link of each chain once,
//! gives every mailbox its next seq, commits with a compare-and-set of the checkpoint; then looks up where the owners are, then pushes.
//!
//! A record before which something is missing is dropped, counted, and its source asked to rewind: the replay comes behind it in the same log,
//! so nothing ever waits in place. One task; fenced, it drops everything it has in memory and ends.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use protocol::UserId;
use protocol::plant::{Bug, planted};
use protocol::record::{MailboxRecord, Source};
use router::RouterError;
use router::chain::{HighWaters, Judgement};
use router::checkpoint::Checkpoint as RouterCheckpoint;
use router::consume::{Rewind, pause};
use router::expand::ShardId;
use router::log::{Entry, Log, LogError, Topic};
use router::registry::{NodeId, Nodes, Registry};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::StorageError;
use crate::push::{Deliver, Push};
use crate::sequence::{Arrival, Placed, Plan, keys_of, owners_of, plan, refusal_keys_of};
use crate::store::{Checkpoint, Commit, HighWater, KeyOf, KeyRow, Row, Store, StoreError};

/// Records in one batch.
const BATCH_MAX: usize = 256;
/// The registry is waited for this long; without it, devices hear of the event by the comparison of heads.
const REGISTRY_WAIT: Duration = Duration::from_millis(200);
/// How often the routers' chains are compared with the high-waters, while the log has nothing more.
const AUDIT_EVERY: Duration = Duration::from_secs(60);

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
    /// How many partitions messages have.
    pub sources: u16,
}

struct Owner<'a> {
    shard: ShardId,
    ports: &'a Ports,
    checkpoint: Checkpoint,
    high_waters: HighWaters,
    audited: Instant,
}

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
    let (checkpoint, high_waters) = patiently(|| ports.store.acquire(shard)).await?;
    let high_waters = high_waters.into_iter().map(|one| (one.source, one.link)).collect();
    let mut owner = Owner { shard, ports, checkpoint, high_waters, audited: Instant::now() };
    loop {
        let entries = owner.read().await?;
        if entries.is_empty() {
            owner.audit().await;
        } else {
            owner.work_in(entries).await?;
        }
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
        let next_offset = self.checkpoint.offset + readable as u64;
        if readable > 0 {
            let plan = self.sequence(judged.arrivals).await?;
            let sources = judged.moved.iter();
            let commit = Commit {
                expect: self.checkpoint,
                next_offset,
                rows: plan.rows.clone(),
                keys: plan.keys,
                high_waters: sources.map(|source| HighWater { source: *source, link: self.high_waters.at(*source) }).collect(),
            };
            let too_early = if planted(Bug::LookUpBeforeCommit) { Some(self.look_up(&plan.rows).await) } else { None };
            self.commit(commit).await?;
            let places = match too_early {
                Some(places) => places,
                None => self.look_up(&plan.rows).await,
            };
            self.push(plan.rows, &places);
            self.ask(&judged.holes);
        }
        match entries.get(readable) {
            None => Ok(()),
            Some(bad) => Err(self.unreadable(bad)),
        }
    }

    /// Judges each record by the chain. Returns also how many could be read: all, but for stored bytes that are no record.
    fn judge(&mut self, entries: &[Entry]) -> (Judged, usize) {
        let mut judged = Judged::default();
        for (readable, entry) in entries.iter().enumerate() {
            let in_order = entry.offset == self.checkpoint.offset + readable as u64;
            let Some(record) = MailboxRecord::decode(&entry.payload).ok().filter(|_| in_order) else {
                return (judged, readable);
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

    /// Gives each mailbox its next seq; leaves out what is known.
    async fn sequence(&self, arrivals: Vec<Arrival>) -> Result<Plan, StoreError> {
        if arrivals.is_empty() {
            return Ok(Plan::default());
        }
        let mut known = HashMap::new();
        self.keys(keys_of(&arrivals), &mut known).await?;
        self.keys(refusal_keys_of(&arrivals, &known), &mut known).await?;
        let owners = owners_of(&arrivals);
        let heads = patiently(|| self.ports.store.heads(self.shard, &owners)).await?;
        let mut heads = owners.into_iter().zip(heads).collect();
        let plan = plan(arrivals, &mut known, &mut heads);
        for placed in &plan.placed {
            let what = match placed {
                Placed::New => "new",
                Placed::Repeat => "repeat",
                Placed::Reused => "reused",
            };
            metrics::counter!("switchboard_storage_messages_total", "what" => what).increment(1);
        }
        Ok(plan)
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
            let what = match self.ports.store.commit(self.shard, commit.clone()).await {
                Ok(()) => "done",
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
    async fn look_up(&self, rows: &[Row]) -> BTreeMap<UserId, Nodes> {
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
    fn push(&self, rows: Vec<Row>, places: &BTreeMap<UserId, Nodes>) {
        let mut by_node: BTreeMap<NodeId, Vec<Push>> = BTreeMap::new();
        for Row { owner, event } in rows {
            for node in places.get(&owner).into_iter().flatten() {
                by_node.entry(*node).or_default().push(Push { owner, event: event.clone() });
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

    /// The log has nothing more: what the routers say they have sent must be here. What they have sent last may be missing, and then no
    /// later record tells of the hole.
    async fn audit(&mut self) {
        if self.audited.elapsed() < AUDIT_EVERY {
            return;
        }
        self.audited = Instant::now();
        for partition in 0..self.ports.sources {
            let Ok(Some(sent)) = self.sent(partition).await else { continue };
            let source = Source { partition, epoch: sent.epoch };
            let (link, high_water) = (sent.chain.at(self.shard), self.high_waters.at(source));
            // asked after the routers: what they counted as durable lies before this end
            let end = self.ports.log.end(Topic::Mailbox, self.shard.0).await;
            if link.next_offset > high_water.next_offset && end == Ok(self.checkpoint.offset) {
                metrics::counter!("switchboard_storage_audits_behind_total").increment(1);
                // seen at the newest record: so a request from before a rewind is known to be older than it
                let hole = self.checkpoint.offset.saturating_sub(1);
                self.ask_for(Rewind { source, shard: self.shard, high_water, hole });
            }
        }
    }

    /// The newest checkpoint of a router, if there is one that can be read now.
    async fn sent(&self, partition: u16) -> Result<Option<RouterCheckpoint>, LogError> {
        let Some(newest) = self.ports.log.end(Topic::RouterCheckpoints, partition).await?.checked_sub(1) else { return Ok(None) };
        let entries = self.ports.log.read(Topic::RouterCheckpoints, partition, newest, 1).await?;
        Ok(entries.first().and_then(|entry| RouterCheckpoint::decode(&entry.payload).ok()))
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

#[cfg(test)]
mod tests;
