//! This process's share of a role's partitions: one task for each, started when the partition should be here, dropped when it should not. Any of
//! them may be dropped at any instant and nothing is lost: the database and the chain see to that. So two processes that both believe a
//! partition is theirs cost a second of repeats, and no more.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use gateway::node::Health;
use router::assign::Kind;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::watch::Troubled;

/// What a partition's task came to.
pub(crate) enum Ended {
    /// Another process has taken it: normal while work moves.
    Taken,
    /// It cannot go on without a person, or a newer build.
    Stopped(String),
}

/// Which partitions should be here.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Share {
    /// What is here and not in this is given back; none: everything stays as it is.
    pub(crate) keep: Option<BTreeSet<u16>>,
    /// What is in this and not here is taken.
    pub(crate) take: BTreeSet<u16>,
}

/// How often the share is looked at, changes aside.
const EVERY: Duration = Duration::from_millis(250);
/// A partition that was taken away is looked at again after this: a virtual shard that has moved to another database is open there at once.
const TAKEN_REST: Duration = Duration::from_millis(30);
/// And after this when it is taken again soon, spread so that two who disagree do not keep step.
const DISPUTED_REST: std::ops::RangeInclusive<u64> = 500..=1500;
/// Soon.
const DISPUTED: Duration = Duration::from_secs(3);
/// One that stopped is tried again after this: a person may have put it right.
const STOPPED_REST: Duration = Duration::from_secs(30);
/// It counts as going on when it has lived for so long after that: what stops one for good does so sooner.
const LIVES_AFTER: Duration = Duration::from_secs(10);

/// Keeps the tasks of one role in line with its share, until `stop`.
pub(crate) struct Owners<S> {
    /// Which partitions.
    pub(crate) kind: Kind,
    /// Readiness of the process.
    pub(crate) health: Arc<Health>,
    /// What the other processes are told.
    pub(crate) troubled: Arc<Troubled>,
    /// Starts the task of a partition.
    pub(crate) start: S,
}

struct Running {
    tasks: JoinSet<(u16, u64, Ended)>,
    /// By partition: which start of a task it is, and the way to drop it.
    here: BTreeMap<u16, (u64, AbortHandle)>,
    starts: u64,
    resting: BTreeMap<u16, Instant>,
    taken: BTreeMap<u16, Instant>,
    /// Those that have stopped, and since when they live again, if they do.
    stopped: BTreeMap<u16, Option<Instant>>,
}

impl Running {
    fn new() -> Self {
        Self {
            tasks: JoinSet::new(),
            here: BTreeMap::new(),
            starts: 0,
            resting: BTreeMap::new(),
            taken: BTreeMap::new(),
            stopped: BTreeMap::new(),
        }
    }
}

impl<S, F> Owners<S>
where
    S: Fn(u16) -> F,
    F: Future<Output = Ended> + Send + 'static,
{
    /// Runs until `stop` is cancelled; then every task is dropped before this returns.
    pub(crate) async fn run(self, mut share: impl FnMut() -> Share, stop: CancellationToken) {
        let mut running = Running::new();
        let owned = metrics::gauge!("switchboard_partitions_owned", "topic" => self.what());
        let mut next = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep_until(next) => {}
                Some(ended) = running.tasks.join_next(), if !running.tasks.is_empty() => {
                    // one that was dropped, or that ended just before it was, is none of this share's any more
                    if let Ok((partition, start, why)) = ended
                        && running.here.get(&partition).is_some_and(|(newest, _)| *newest == start)
                    {
                        self.ended(&mut running, partition, why);
                    }
                    next = next.min(Instant::now() + TAKEN_REST);
                    continue;
                }
            }
            next = Instant::now() + EVERY;
            self.apply(&mut running, share());
            owned.set(running.here.len() as f64);
        }
        running.tasks.shutdown().await;
        running.stopped.keys().for_each(|partition| self.goes_on(*partition));
        owned.set(0.0);
    }

    fn apply(&self, running: &mut Running, share: Share) {
        if let Some(keep) = &share.keep {
            let given: Vec<_> = running.here.keys().filter(|partition| !keep.contains(partition)).copied().collect();
            for partition in &given {
                if let Some((_, task)) = running.here.remove(partition) {
                    task.abort();
                }
            }
            if !given.is_empty() {
                tracing::info!(topic = self.what(), partitions = ?given, "gives back");
            }
            running.resting.retain(|partition, _| keep.contains(partition));
            running.stopped.retain(|partition, _| {
                let stays = keep.contains(partition);
                if !stays {
                    self.goes_on(*partition);
                }
                stays
            });
        }
        let now = Instant::now();
        running.stopped.retain(|partition, lives| {
            let well = lives.is_some_and(|since| now.duration_since(since) >= LIVES_AFTER);
            if well {
                self.goes_on(*partition);
            }
            !well
        });
        let rests = |partition: &u16| running.resting.get(partition).is_some_and(|until| *until > now);
        let taken: Vec<_> =
            share.take.iter().filter(|partition| !running.here.contains_key(partition) && !rests(partition)).copied().collect();
        for partition in &taken {
            let task = (self.start)(*partition);
            let partition = *partition;
            running.starts += 1;
            let start = running.starts;
            let handle = running.tasks.spawn(async move { (partition, start, task.await) });
            running.here.insert(partition, (start, handle));
            running.resting.remove(&partition);
            if let Some(lives) = running.stopped.get_mut(&partition) {
                *lives = Some(now);
            }
        }
        if !taken.is_empty() {
            tracing::info!(topic = self.what(), partitions = ?taken, "takes");
        }
    }

    fn ended(&self, running: &mut Running, partition: u16, why: Ended) {
        running.here.remove(&partition);
        let (rest, what) = match why {
            Ended::Taken => {
                let before = running.taken.insert(partition, Instant::now());
                let disputed = before.is_some_and(|at| at.elapsed() < DISPUTED);
                (if disputed { Duration::from_millis(rand::random_range(DISPUTED_REST)) } else { TAKEN_REST }, "taken")
            }
            Ended::Stopped(why) => {
                tracing::error!(topic = self.what(), partition, why, "stops, and is tried again");
                self.health.part(&self.name(partition), Some(why));
                self.troubled.stopped(self.kind, partition);
                running.stopped.insert(partition, None);
                (STOPPED_REST, "stopped")
            }
        };
        metrics::counter!("switchboard_partitions_ended_total", "topic" => self.what(), "why" => what).increment(1);
        running.resting.insert(partition, Instant::now() + rest);
    }

    /// What the partitions are called in logs and metrics.
    const fn what(&self) -> &'static str {
        self.kind.topic().name()
    }

    fn name(&self, partition: u16) -> String {
        format!("{} {partition}", self.what())
    }

    fn goes_on(&self, partition: u16) {
        self.health.part(&self.name(partition), None);
        self.troubled.goes_on(self.kind, partition);
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use tokio::time::sleep;

    use super::*;

    fn set(partitions: &[u16]) -> BTreeSet<u16> {
        partitions.iter().copied().collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_tasks_follow_the_share_and_rest_after_they_ended() {
        let alive: Arc<Mutex<BTreeSet<u16>>> = Arc::default();
        let starts: Arc<Mutex<Vec<u16>>> = Arc::default();
        let share: Arc<Mutex<Share>> = Arc::default();
        struct Alive(Arc<Mutex<BTreeSet<u16>>>, u16);
        impl Drop for Alive {
            fn drop(&mut self) {
                self.0.lock().remove(&self.1);
            }
        }
        let (here, count) = (Arc::clone(&alive), Arc::clone(&starts));
        let start = move |partition: u16| {
            count.lock().push(partition);
            here.lock().insert(partition);
            let alive = Alive(Arc::clone(&here), partition);
            async move {
                if partition == 9 {
                    return Ended::Taken;
                }
                std::future::pending::<()>().await;
                drop(alive);
                Ended::Taken
            }
        };
        let owners = Owners { kind: Kind::Mailbox, health: Arc::default(), troubled: Arc::default(), start };
        let (asked, stop) = (Arc::clone(&share), CancellationToken::new());
        let run = tokio::spawn(owners.run(move || asked.lock().clone(), stop.clone()));
        *share.lock() = Share { keep: Some(set(&[1, 2, 9])), take: set(&[1, 2, 9]) };
        sleep(Duration::from_millis(300)).await;
        assert_eq!(*alive.lock(), set(&[1, 2]));
        let begun = starts.lock().len();
        assert!((4..=5).contains(&begun), "9 was tried again at once, then it rests: {begun}");
        // frozen: nothing is taken, nothing given back
        *share.lock() = Share { keep: None, take: set(&[]) };
        sleep(Duration::from_secs(5)).await;
        assert_eq!(*alive.lock(), set(&[1, 2]));
        assert_eq!(starts.lock().len(), begun, "9 is not started again while nothing is to be taken");
        *share.lock() = Share { keep: Some(set(&[2, 9])), take: set(&[2, 9]) };
        sleep(Duration::from_secs(5)).await;
        assert_eq!(*alive.lock(), set(&[2]));
        assert!((begun + 2..=begun + 12).contains(&starts.lock().len()), "9 rests between its tries: {:?}", starts.lock());
        stop.cancel();
        run.await.unwrap();
        assert_eq!(*alive.lock(), set(&[]));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_stops_counts_as_stopped_until_it_lives_for_a_while() {
        let (troubled, health): (Arc<Troubled>, Arc<Health>) = Default::default();
        health.stands_without_canary();
        let mended = Arc::new(Mutex::new(false));
        let is_mended = Arc::clone(&mended);
        let start = move |_| {
            let mended = *is_mended.lock();
            async move {
                if !mended {
                    return Ended::Stopped("a record of a newer build".into());
                }
                std::future::pending().await
            }
        };
        let owners = Owners { kind: Kind::Messages, health: Arc::clone(&health), troubled: Arc::clone(&troubled), start };
        let share = Share { keep: Some(set(&[3])), take: set(&[3]) };
        let stop = CancellationToken::new();
        let run = tokio::spawn(owners.run(move || share.clone(), stop.clone()));
        let stopped = || troubled.all().of(Kind::Messages, 3).is_some();
        for _ in 0..80 {
            sleep(Duration::from_secs(1)).await;
            assert!(stopped() && health.is_against("messages 3"), "also in the moments in which it is tried again");
        }
        *mended.lock() = true;
        sleep(STOPPED_REST + LIVES_AFTER + Duration::from_secs(1)).await;
        assert!(!stopped() && health.not_ready().is_none());
        stop.cancel();
        run.await.unwrap();
    }
}
