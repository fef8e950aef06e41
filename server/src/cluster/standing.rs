//! Where partitions stand: how far whoever works on one has come, where its log ends, and for how long the oldest record in between has waited.
//! Positions are read from where they are kept (the routers' checkpoints, the databases), so anybody can look, also at partitions nobody works on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use gateway::node::now_ms;
use parking_lot::Mutex;
use router::assign::Kind;
use router::checkpoint::Newest;
use router::expand::ShardId;
use router::log::{Log, LogError};
use storage::store::postgres::PostgresStore;

/// Where a partition stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Standing {
    /// The next offset to be worked in; none: nobody can say.
    pub(super) position: Option<u64>,
    /// The offset the next record will get; none: the log does not say.
    pub(super) end: Option<u64>,
    /// For how long the oldest record that is not worked in has been in the log; zero: there is none, or it has just come. When nobody can
    /// say how far it is worked in: for how long that has been so.
    pub(super) waits: Duration,
}

impl Standing {
    /// Records that wait.
    pub(super) fn lag(&self) -> Option<u64> {
        Some(self.end?.saturating_sub(self.position?))
    }
}

/// What the look before has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    position: Option<u64>,
    end: Option<u64>,
    /// Since when what waits at the position has waited, milliseconds since 1970.
    since_ms: u64,
}

/// Looks at partitions, again and again. Bounded by how many there are.
pub(super) struct Looker {
    log: Arc<dyn Log>,
    store: Arc<PostgresStore>,
    newest: Newest,
    seen: Mutex<BTreeMap<(Kind, u16), Seen>>,
}

impl Looker {
    /// `messages`: how many partitions that topic has. A router's checkpoint is asked for anew at each look.
    pub(super) fn new(log: Arc<dyn Log>, store: Arc<PostgresStore>, messages: u16) -> Self {
        let newest = Newest::new(Arc::clone(&log), messages).fresh_for(Duration::ZERO);
        Self { log, store, newest, seen: Mutex::default() }
    }

    /// Looks at these now; what was seen of others is forgotten.
    pub(super) async fn look(&self, kind: Kind, partitions: &BTreeSet<u16>) -> BTreeMap<u16, Standing> {
        self.seen.lock().retain(|(of, partition), _| *of != kind || partitions.contains(partition));
        if partitions.is_empty() {
            return BTreeMap::new();
        }
        let positions = self.positions(kind, partitions).await;
        let ends = join_all(partitions.iter().map(|partition| self.log.end(kind.topic(), *partition))).await;
        let looks = partitions.iter().zip(ends).map(async |(partition, end)| {
            let standing = self.stands((kind, *partition), positions.get(partition).copied(), end.ok()).await;
            (*partition, standing)
        });
        join_all(looks).await.into_iter().collect()
    }

    async fn positions(&self, kind: Kind, partitions: &BTreeSet<u16>) -> BTreeMap<u16, u64> {
        match kind {
            Kind::Messages => {
                let reads = partitions.iter().map(async |partition| (*partition, self.newest.read(*partition).await));
                let read = join_all(reads).await.into_iter();
                let position = |(partition, found): (u16, Result<Option<router::checkpoint::Checkpoint>, _>)| {
                    Some((partition, found.ok()?.map_or(0, |checkpoint| checkpoint.next_offset)))
                };
                read.filter_map(position).collect()
            }
            Kind::Mailbox => {
                let all = self.store.positions().await;
                partitions.iter().filter_map(|shard| Some((*shard, all.get(&ShardId(*shard))?.offset))).collect()
            }
        }
    }

    async fn stands(&self, key: (Kind, u16), position: Option<u64>, end: Option<u64>) -> Standing {
        let before = self.seen.lock().get(&key).copied();
        // who does not answer now has not gone back
        let position = position.or_else(|| before?.position);
        let end = end.or_else(|| before?.end);
        let now = now_ms();
        let since_ms = match waiting(before, position, end) {
            Waiting::Nothing => now,
            Waiting::Since(ms) => ms,
            Waiting::Ask(position) => match self.log.taken_at(key.0.topic(), key.1, position).await {
                Ok(Some(taken_ms)) => taken_ms,
                // the log has forgotten it
                Err(LogError::Refused(_)) => 0,
                Ok(None) | Err(_) => before.map_or(now, |before| before.since_ms),
            },
        };
        self.seen.lock().insert(key, Seen { position, end, since_ms });
        Standing { position, end, waits: Duration::from_millis(now.saturating_sub(since_ms)) }
    }
}

/// Since when something waits.
#[derive(Debug, PartialEq, Eq)]
enum Waiting {
    /// Nothing does, or only what came since the look before.
    Nothing,
    /// Since then, as was found out before.
    Since(u64),
    /// The log must say it of the record there.
    Ask(u64),
}

fn waiting(before: Option<Seen>, position: Option<u64>, end: Option<u64>) -> Waiting {
    let (Some(position), Some(end)) = (position, end) else {
        return match before {
            Some(before) if before.position.is_none() || before.end.is_none() => Waiting::Since(before.since_ms),
            _ => Waiting::Nothing,
        };
    };
    match before {
        _ if position >= end => Waiting::Nothing,
        Some(Seen { end: Some(before), .. }) if position >= before => Waiting::Nothing,
        // it waited there before, so it was asked for then
        Some(Seen { position: Some(at), end: Some(ended), since_ms }) if at == position && ended > position => {
            Waiting::Since(since_ms)
        }
        _ => Waiting::Ask(position),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_asked_only_about_what_has_waited_since_the_look_before() {
        let seen = |position, end| Some(Seen { position, end, since_ms: 7 });
        let (at, to) = (Some(5), Some(9));
        assert_eq!(waiting(None, at, at), Waiting::Nothing);
        assert_eq!(waiting(None, at, to), Waiting::Ask(5), "the first look knows nothing");
        assert_eq!(waiting(seen(Some(3), Some(5)), at, to), Waiting::Nothing, "all that waits has come since");
        assert_eq!(waiting(seen(Some(3), Some(6)), at, to), Waiting::Ask(5), "it moved, and not to where the end was");
        assert_eq!(waiting(seen(Some(5), Some(6)), at, to), Waiting::Since(7), "it stands");
        assert_eq!(waiting(seen(Some(5), Some(5)), at, to), Waiting::Nothing, "what waits has come since");
        assert_eq!(waiting(None, None, to), Waiting::Nothing);
        assert_eq!(waiting(seen(None, to), None, to), Waiting::Since(7), "nobody can say, and could not before");
    }
}
