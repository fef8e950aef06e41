//! `switchboard partition`, `stream-epoch` and `log`: what a person does when a partition cannot go on, a shard's mailboxes are other ones, or the
//! log begins anew. Each is safe beside processes that live: a virtual shard changes under compare-and-set, which fences its owner; of `messages` a
//! checkpoint is added that says no more than the newest, so a router that goes on from either says the same.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use protocol::record::{MailboxRecord, Record, Undecodable};
use router::assign::Kind;
use router::checkpoint::{Checkpoint, Newest, fingerprint};
use router::expand::ShardId;
use router::log::kafka::{KafkaLog, topics};
use router::log::{Entry, Log, LogError, Topic};
use router::members::{self, Role as Lease, View};
use router::registry::redis::RedisLink;
use storage::store::postgres::{PostgresStore, mend};
use tokio::time::{Instant, sleep, timeout};

use super::config::Cluster;
use super::shares;
use super::standing::{Looker, Standing};
use crate::args::{AdoptLog, Skip};

/// So long an engine is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two tries.
const AGAIN: Duration = Duration::from_millis(100);

/// A log that answers.
async fn log(cluster: &Cluster) -> anyhow::Result<Arc<KafkaLog>> {
    let log = KafkaLog::connect(&cluster.kafka).context("cluster.kafka")?;
    let mut reachable = log.reachable();
    let answers = timeout(PATIENCE, reachable.wait_for(|up| *up)).await.is_ok_and(|up| up.is_ok());
    ensure!(answers, "no broker of {} answers", cluster.kafka.brokers.join(", "));
    Ok(log)
}

/// Who is in the cluster.
async fn members(cluster: &Cluster) -> anyhow::Result<View> {
    let link = RedisLink::new(cluster.redis.clone()).context("cluster.redis")?;
    let until = Instant::now() + PATIENCE;
    loop {
        match members::look(&link).await {
            Ok(view) => return Ok(view),
            Err(why) if Instant::now() >= until => return Err(why).context("who is in the cluster"),
            Err(_) => sleep(AGAIN).await,
        }
    }
}

/// Tries until the log answers.
async fn patiently<T, F: Future<Output = Result<T, LogError>>>(mut ask: impl FnMut() -> F) -> Result<T, LogError> {
    let until = Instant::now() + PATIENCE;
    loop {
        match ask().await {
            Err(LogError::Unavailable(_)) if Instant::now() < until => sleep(AGAIN).await,
            settled => return settled,
        }
    }
}

/// Lists all partitions that are worked on, or only those that are not well.
pub(super) async fn list(cluster: &Cluster, only_troubled: bool) -> anyhow::Result<()> {
    let log = log(cluster).await?;
    let store = Arc::new(PostgresStore::connect(&cluster.postgres).await.context("cluster.postgres")?);
    let view = members(cluster).await?;
    let held = store.held();
    let looker = Looker::new(log.clone(), store, cluster.kafka.partitions.messages);
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{:<9} {:>9}  {:<16} {:>12} {:>12} {:>10} {:>12}  STATE",
        "TOPIC", "PARTITION", "OWNER", "POSITION", "END", "LAG", "OLDEST"
    )?;
    for kind in [Kind::Messages, Kind::Mailbox] {
        let count = cluster.kafka.partitions.of(kind.topic());
        let all: BTreeSet<u16> = (0..count).collect();
        let owners = shares::owners(&view, kind, count, &held);
        for (partition, standing) in looker.look(kind, &all).await {
            let owner = owners.get(&partition).and_then(|node| view.members.iter().find(|one| one.node == *node));
            let trouble = view.members.iter().find_map(|member| member.troubles.of(kind, partition));
            let state = match (trouble, owner) {
                (Some(trouble), _) => trouble.name(),
                (None, None) => "nobody's",
                _ => "ok",
            };
            if only_troubled && state == "ok" {
                continue;
            }
            let Standing { position, end, waits } = standing;
            let number = |number: Option<u64>| number.map_or_else(|| "?".to_owned(), |number| number.to_string());
            let lag = standing.lag();
            let oldest = if lag == Some(0) { "-".to_owned() } else { format!("{} s", waits.as_secs()) };
            let owner = owner.map_or("-", |member| member.name.as_str());
            writeln!(
                out,
                "{:<9} {partition:>9}  {owner:<16} {:>12} {:>12} {:>10} {oldest:>12}  {state}",
                kind.topic().name(),
                number(position),
                number(end),
                number(lag)
            )?;
        }
    }
    Ok(())
}

/// What stands where a partition cannot go on.
enum Obstacle {
    /// A record that this build cannot read.
    Unreadable(Entry, Undecodable),
    /// The log begins only here: what was before is forgotten.
    Forgotten(u64),
}

/// Looks at the record a partition stands at. What this build reads, or leaves out by itself, is no obstacle.
async fn obstacle(log: &KafkaLog, topic: Topic, partition: u16, offset: u64) -> anyhow::Result<Obstacle> {
    let begins = patiently(|| log.start(topic, partition)).await?;
    if offset < begins {
        return Ok(Obstacle::Forgotten(begins));
    }
    let end = patiently(|| log.end(topic, partition)).await?;
    ensure!(offset < end, "{} {partition} ends at {end}: there is nothing at {offset} to step over", topic.name());
    let entries = patiently(|| log.read(topic, partition, offset, 1)).await?;
    let entry = entries.into_iter().find(|entry| entry.offset == offset).context("the log has no record at that offset")?;
    let decoded = match topic {
        Topic::Messages => Record::decode(&entry.payload).map(drop),
        _ => MailboxRecord::decode(&entry.payload).map(drop),
    };
    match decoded {
        Ok(()) => bail!("this build reads the record at {offset}: it is not what stops the partition"),
        Err(why) if why.is_garbage() => {
            bail!("the record at {offset} is nobody's ({why}) and is left out by itself: it is not what stops the partition")
        }
        Err(why) => Ok(Obstacle::Unreadable(entry, why)),
    }
}

/// The record before this place is the one the checkpoint was made of; what the log has forgotten is believed.
async fn same_log(log: &KafkaLog, topic: Topic, partition: u16, (offset, print): (u64, u64)) -> anyhow::Result<()> {
    let Some(last) = offset.checked_sub(1) else { return Ok(()) };
    let entries = match patiently(|| log.read(topic, partition, last, 1)).await {
        Err(LogError::Refused(_)) => return Ok(()),
        read => read?,
    };
    let same = entries.iter().any(|entry| entry.offset == last && fingerprint(&entry.payload) == print);
    ensure!(
        same,
        "{} {partition} is not the log its checkpoint at {offset} was made of: stepping over helps nothing",
        topic.name()
    );
    Ok(())
}

/// Keeps the bytes of a record that is stepped over.
fn save(skip: &Skip, topic: Topic, entry: &Entry) -> anyhow::Result<PathBuf> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let name = || PathBuf::from(format!("{}-{}-{}.record", topic.name(), skip.partition, skip.offset));
    let path = skip.save.clone().unwrap_or_else(name);
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    let mut file = file
        .with_context(|| format!("the bytes of the record are to be kept in {} (--save names another file)", path.display()))?;
    file.write_all(&entry.payload).and_then(|()| file.sync_all()).with_context(|| path.display().to_string())?;
    Ok(path)
}

/// Steps over what a partition cannot go on from.
pub(super) async fn skip(cluster: &Cluster, skip: &Skip) -> anyhow::Result<()> {
    let (topic, partition, offset) = (Topic::from(skip.topic), skip.partition, skip.offset);
    let count = cluster.kafka.partitions.of(topic);
    ensure!(partition < count, "{} has the partitions 0 to {}", topic.name(), count - 1);
    let log = log(cluster).await?;
    let at = match topic {
        Topic::Messages => Place::Routed(routed(cluster, &log, partition).await?),
        _ => Place::Stored(stored(cluster, partition).await?),
    };
    let stands = at.offset();
    ensure!(
        stands == offset,
        "{} {partition} stands at offset {stands}: only what it stands at can be stepped over",
        topic.name()
    );
    if let Place::Routed(checkpoint) = &at {
        same_log(&log, topic, partition, (checkpoint.next_offset, checkpoint.fingerprint)).await?;
    }
    let found = obstacle(&log, topic, partition, offset).await?;
    let what = match &found {
        Obstacle::Unreadable(entry, why) => format!("a record of {} bytes ({why})", entry.payload.len()),
        Obstacle::Forgotten(begins) => format!("{} records that the log has forgotten", begins - offset),
    };
    ensure!(skip.yes, "this steps over {what}, for ever: say it with --yes");
    let (next, print) = match &found {
        Obstacle::Unreadable(entry, _) => {
            println!("the record is kept in {}", save(skip, topic, entry)?.display());
            (offset + 1, fingerprint(&entry.payload))
        }
        Obstacle::Forgotten(begins) => (*begins, 0),
    };
    match at {
        Place::Routed(checkpoint) => step_router(&log, partition, (checkpoint, next), &found).await?,
        Place::Stored(_) => mend::step_over(&cluster.postgres, partition, (offset, next), print).await?,
    }
    println!("{} {partition} steps over {what}; whoever owns it goes on within half a minute", topic.name());
    Ok(())
}

/// Where a partition stands.
enum Place {
    Routed(Checkpoint),
    Stored(u64),
}

impl Place {
    const fn offset(&self) -> u64 {
        match self {
            Self::Routed(checkpoint) => checkpoint.next_offset,
            Self::Stored(offset) => *offset,
        }
    }
}

async fn routed(cluster: &Cluster, log: &Arc<KafkaLog>, partition: u16) -> anyhow::Result<Checkpoint> {
    let newest = Newest::new(log.clone(), cluster.kafka.partitions.messages).read(partition).await?;
    let checkpoint = newest.unwrap_or_else(|| Checkpoint::start(cluster.log_epoch));
    let (is, wanted) = (checkpoint.epoch, cluster.log_epoch);
    ensure!(is == wanted, "the checkpoint is of log epoch {is}, and cluster.log_epoch is {wanted}");
    Ok(checkpoint)
}

async fn stored(cluster: &Cluster, shard: u16) -> anyhow::Result<u64> {
    let store = PostgresStore::connect(&cluster.postgres).await.context("cluster.postgres")?;
    let positions = store.positions().await;
    store.close().await;
    let checkpoint = positions.get(&ShardId(shard));
    Ok(checkpoint.with_context(|| format!("shard {shard} is open in none of the databases that answer"))?.offset)
}

/// Adds a checkpoint that leaves the record out. It stands where the newest one does, with the same links: who goes on from it comes to the
/// record, and leaves it out as every rewind will. A router that lives and stands there writes no checkpoint; one that has an older position may
/// write one behind this, and then it is done again.
async fn step_router(
    log: &KafkaLog,
    partition: u16,
    (mut checkpoint, next): (Checkpoint, u64),
    found: &Obstacle,
) -> anyhow::Result<()> {
    match found {
        Obstacle::Unreadable(entry, _) => checkpoint.skip(entry.offset),
        Obstacle::Forgotten(_) => {
            checkpoint.next_offset = next;
            checkpoint.fingerprint = 0;
        }
    }
    log.append(Topic::RouterCheckpoints, partition, checkpoint.encode()).await.context("the checkpoint was not stored")?;
    Ok(())
}

/// Tells devices that the mailboxes of these shards are other ones now.
pub(super) async fn raise_stream_epochs(cluster: &Cluster, shards: &[u16]) -> anyhow::Result<()> {
    let count = cluster.kafka.partitions.mailbox;
    ensure!(shards.iter().all(|shard| *shard < count), "the virtual shards are 0 to {}", count - 1);
    for shard in shards {
        let epoch = mend::raise_stream_epoch(&cluster.postgres, *shard).await?;
        println!("shard {shard}: stream epoch {epoch}; sessions are closed with 4410 and devices read anew");
    }
    Ok(())
}

/// Has every shard begin at the front of a log that is new and empty.
pub(super) async fn adopt(cluster: &Cluster, adopt: &AdoptLog) -> anyhow::Result<()> {
    let view = members(cluster).await?;
    let working = |lease: Lease| view.members.iter().filter(move |member| member.roles.has(lease));
    let names: BTreeSet<_> =
        [Lease::Router, Lease::Storage].into_iter().flat_map(working).map(|member| member.name.as_str()).collect();
    if !names.is_empty() {
        let names: Vec<_> = names.into_iter().collect();
        bail!(
            "{} still work, or have ended within the last minute: stop all routers and storage processes first",
            names.join(", ")
        );
    }
    let log = log(cluster).await?;
    if let Err(faults) = topics::verify(&cluster.kafka).await {
        bail!(
            "the topics are not what they must be:\n  {}",
            faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  ")
        );
    }
    let mut full = BTreeMap::new();
    for topic in [Topic::Messages, Topic::GroupMessages, Topic::Mailbox, Topic::RouterCheckpoints] {
        for partition in 0..cluster.kafka.partitions.of(topic) {
            let end = patiently(|| log.end(topic, partition)).await?;
            if end > 0 {
                full.insert((topic.name(), partition), end);
            }
        }
    }
    if let Some(((topic, partition), end)) = full.first_key_value() {
        bail!("{} partitions are not empty, {topic} {partition} ends at {end}: this is not a new log", full.len());
    }
    let epoch = cluster.log_epoch;
    ensure!(
        adopt.yes,
        "this sets every shard to the beginning of the new log, as epoch {epoch}; what was accepted and is in no mailbox is given up: say it with --yes"
    );
    let shards = mend::adopt_log(&cluster.postgres, epoch).await?;
    println!("{shards} shards begin at the front of the new log, epoch {epoch}: start the processes, all with that log_epoch");
    Ok(())
}
