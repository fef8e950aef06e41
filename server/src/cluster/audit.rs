//! The audit of a virtual shard while it is in use: what routers say they have sent to it must be in it as soon as its log is worked in to where
//! it ended when they were asked. What is missing then was lost on its way (the last records of a router that died, an append that never was) or
//! is refused there (a wrong digest). It is asked for again; a source from which it does not come makes the process not ready.
//!
//! The owner itself audits a shard whose log has nothing more (`storage/src/consume.rs`); this one needs no silence.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use protocol::record::{Link, Source};
use router::assign::Kind;
use router::checkpoint::Newest;
use router::consume::Rewind;
use router::expand::ShardId;
use router::log::Log;
use storage::store::postgres::Taken;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Process;
use super::watch::named;

/// How often routers are asked what they have sent.
const EVERY: Duration = Duration::from_secs(60);
/// How often it is looked whether that is worked in.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A source that is behind at so many audits in a row stands: rewinds take seconds.
const STANDS_AFTER: u32 = 3;

/// What a shard is to have when its log is worked in up to here.
#[derive(Debug)]
struct Due {
    end: u64,
    sent: BTreeMap<Source, Link>,
}

/// A source that is behind.
#[derive(Debug, Clone, Copy)]
struct Behind {
    audits: u32,
    since: Instant,
}

/// What is remembered between looks. Bounded by shards times sources.
#[derive(Debug, Default)]
struct Audit {
    due: BTreeMap<ShardId, Due>,
    behind: BTreeMap<(ShardId, Source), Behind>,
}

/// Whether a shard that has taken `taken` lacks what was sent: less than that, or something else at that place.
fn lacks(taken: Link, sent: Link) -> bool {
    taken.next_offset < sent.next_offset || (taken.next_offset == sent.next_offset && taken.digest != sent.digest)
}

impl Audit {
    /// Compares what is due of one shard; returns what is to be asked for again.
    fn compare(&mut self, shard: ShardId, taken: &Taken) -> Vec<Rewind> {
        let Some(due) = self.due.get(&shard).filter(|due| taken.position >= due.end) else { return Vec::new() };
        let mut asks = Vec::new();
        for (source, sent) in &due.sent {
            let high_water = taken.sources.get(source).copied().unwrap_or_default();
            if lacks(high_water, *sent) {
                let behind = self.behind.entry((shard, *source)).or_insert(Behind { audits: 0, since: Instant::now() });
                behind.audits += 1;
                // as if seen at the newest record: so a request from before a rewind is known to be older than it
                asks.push(Rewind { source: *source, shard, high_water, hole: taken.position.saturating_sub(1) });
            } else {
                self.behind.remove(&(shard, *source));
            }
        }
        self.due.remove(&shard);
        asks
    }

    /// Forgets the shards of others.
    fn keep(&mut self, shards: &BTreeSet<u16>) {
        self.due.retain(|shard, _| shards.contains(&shard.0));
        self.behind.retain(|(shard, _), _| shards.contains(&shard.0));
    }

    /// Sources that stand, with the shards they do not reach.
    fn standing(&self) -> BTreeMap<u16, BTreeSet<u16>> {
        let mut standing: BTreeMap<u16, BTreeSet<u16>> = BTreeMap::new();
        for ((shard, source), _) in self.behind.iter().filter(|(_, behind)| behind.audits >= STANDS_AFTER) {
            standing.entry(source.partition).or_default().insert(shard.0);
        }
        standing
    }
}

/// Audits the shards of this process, for as long as it runs.
pub(super) async fn run(process: &Process, rewinds: mpsc::Sender<Rewind>) {
    let log: Arc<dyn Log> = process.log.clone();
    let newest = Newest::new(Arc::clone(&log), process.cluster.kafka.partitions.messages);
    let (mut audit, mut asked, mut named_before) = (Audit::default(), None::<Instant>, BTreeSet::new());
    let mut every = tokio::time::interval(LOOK_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let shards = process.watched(Kind::Mailbox);
        audit.keep(&shards);
        if asked.is_none_or(|at| at.elapsed() >= EVERY) && !shards.is_empty() {
            asked = Some(Instant::now());
            ask(&mut audit, &*log, &newest, &shards).await;
        }
        let due: Vec<_> = audit.due.keys().copied().collect();
        if !due.is_empty() {
            for (shard, taken) in process.store.taken(&due).await {
                for rewind in audit.compare(shard, &taken) {
                    metrics::counter!("switchboard_storage_audits_behind_total").increment(1);
                    tracing::warn!(shard = shard.0, source = ?rewind.source, "what was sent is not here: asks for a rewind");
                    let _ = rewinds.try_send(rewind);
                }
            }
        }
        named_before = tell(process, &audit, &named_before);
    }
}

/// Asks all routers what they have sent, and then where the logs end: what they counted as durable lies before that.
async fn ask(audit: &mut Audit, log: &dyn Log, newest: &Newest, shards: &BTreeSet<u16>) {
    let sent = join_all((0..newest.sources()).map(async |partition| (partition, newest.of(partition).await))).await;
    let ends = join_all(shards.iter().map(|shard| log.end(Kind::Mailbox.topic(), *shard))).await;
    for (shard, end) in shards.iter().map(|shard| ShardId(*shard)).zip(ends) {
        let Ok(end) = end else { continue };
        let link = |(partition, checkpoint): &(u16, Option<router::checkpoint::Checkpoint>)| {
            let checkpoint = checkpoint.as_ref()?;
            let link = checkpoint.chain.at(shard);
            (link.next_offset > 0).then_some((Source { partition: *partition, epoch: checkpoint.epoch }, link))
        };
        // one that is not worked in yet stays due
        audit.due.entry(shard).or_insert_with(|| Due { end, sent: sent.iter().filter_map(link).collect() });
    }
}

/// Says which sources stand. Returns them.
fn tell(process: &Process, audit: &Audit, before: &BTreeSet<u16>) -> BTreeSet<u16> {
    let standing = audit.standing();
    let name = |source: &u16| format!("messages {source} in mailboxes");
    for (source, shards) in &standing {
        if !before.contains(source) {
            tracing::error!(partition = source, ?shards, "this source stands: what it sends to these shards is not taken");
        }
        let why = format!("what it sends to {} is not taken, whatever is asked for", named(shards));
        process.gateway.health.part(&name(source), Some(why));
    }
    for source in before.iter().filter(|source| !standing.contains_key(source)) {
        process.gateway.health.part(&name(source), None);
    }
    metrics::gauge!("switchboard_storage_sources_standing").set(standing.len() as f64);
    let late_after = process.cluster.kafka.retention / 2;
    let late = audit.behind.iter().filter(|(_, behind)| behind.since.elapsed() >= late_after);
    process.troubled.set_standing(late.map(|((_, source), _)| source.partition).collect());
    standing.into_keys().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: ShardId = ShardId(2);
    const SOURCE: Source = Source { partition: 5, epoch: 1 };

    fn link(next_offset: u64, digest: u64) -> Link {
        Link { next_offset, digest }
    }

    fn taken(position: u64, link: Link) -> Taken {
        Taken { position, sources: [(SOURCE, link)].into() }
    }

    fn due(audit: &mut Audit) {
        audit.due.insert(SHARD, Due { end: 10, sent: [(SOURCE, link(7, 70))].into() });
    }

    #[tokio::test]
    async fn it_waits_until_the_log_is_worked_in_and_names_who_stands() {
        let mut audit = Audit::default();
        due(&mut audit);
        assert_eq!(audit.compare(SHARD, &taken(9, link(3, 30))), [], "a busy shard: what is missing may be on its way");
        assert_eq!(audit.compare(SHARD, &taken(12, link(8, 80))), [], "more than was sent then is here");
        assert!(audit.due.is_empty());
        for audits in 1..=STANDS_AFTER {
            assert!(audit.standing().is_empty(), "after {audits}");
            due(&mut audit);
            let asks = audit.compare(SHARD, &taken(12, link(3, 30)));
            assert_eq!(asks, [Rewind { source: SOURCE, shard: SHARD, high_water: link(3, 30), hole: 11 }]);
        }
        assert_eq!(audit.standing(), [(5, [2].into())].into());
        due(&mut audit);
        assert_eq!(audit.compare(SHARD, &taken(12, link(7, 70))), []);
        assert!(audit.standing().is_empty(), "it came");
        due(&mut audit);
        assert_eq!(audit.compare(SHARD, &taken(12, link(7, 71))).len(), 1, "another record at that place");
        audit.keep(&[3].into());
        assert!(audit.behind.is_empty(), "the shard is somebody else's");
    }
}
