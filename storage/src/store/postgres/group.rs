//! Commits to one database that wait at the same time go out together: one call, one transaction, one fsync. While some are on their way, and
//! for a rest behind them, the next ones gather: so groups grow with the load, and on a quiet database a commit waits for nobody.
//!
//! A group that is refused did nothing, and each of its commits is tried alone: so one that is fenced, or meets a known key, is told so and costs the
//! others a second try. One whose outcome is unknown is unknown to all of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use protocol::record::EventBody;
use router::expand::ShardId;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::base::{Base, Failed};
use super::columns::Batch;
use crate::store::{Commit, Row};

/// Rows in a group; one commit may have more.
const ROWS_MAX: usize = 2_048;
/// Bytes of messages in a group; one commit may have more.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// A commit that waits.
#[derive(Debug)]
struct Waiting {
    shard: ShardId,
    commit: Commit,
    rows: usize,
    bytes: usize,
    answer: oneshot::Sender<Result<(), Failed>>,
}

/// The commits to one database. Waiting are at most as many as this process owns shards there: an owner waits for its commit.
#[derive(Debug)]
pub(super) struct Group {
    state: Mutex<State>,
    flights_max: u32,
    rest_max: Duration,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Waiting>,
    flights: u32,
}

impl Group {
    pub(super) fn new(flights_max: u32, rest_max: Duration) -> Self {
        Self { state: Mutex::default(), flights_max, rest_max }
    }

    /// True: a flight is to begin.
    fn push(&self, waiting: Waiting) -> bool {
        let mut state = self.state.lock();
        state.waiting.push_back(waiting);
        let begins = state.flights < self.flights_max;
        state.flights += u32::from(begins);
        begins
    }

    /// What goes out next; nothing: the flight ends.
    fn take(&self) -> Vec<Waiting> {
        let mut state = self.state.lock();
        let (mut taken, mut rows, mut bytes) = (Vec::new(), 0, 0);
        while let Some(next) = state.waiting.front() {
            rows += next.rows;
            bytes += next.bytes;
            if !taken.is_empty() && (rows > ROWS_MAX || bytes > BYTES_MAX) {
                break;
            }
            // whoever has gone has given it up
            taken.extend(state.waiting.pop_front().filter(|next| !next.answer.is_closed()));
        }
        if taken.is_empty() {
            state.flights -= 1;
        }
        taken
    }
}

/// Commits, together with whatever waits for the same database.
pub(super) async fn commit(base: &Arc<Base>, shard: ShardId, commit: Commit) -> Result<(), Failed> {
    let (answer, answered) = oneshot::channel();
    let bytes = |row: &Row| match &row.event.body {
        EventBody::Message(message) => message.record.content.size(),
        EventBody::Refused(_) => 0,
    };
    let (rows, bytes) = (commit.rows.len() + commit.keys.len(), commit.rows.iter().map(bytes).sum());
    if base.group.push(Waiting { shard, commit, rows, bytes, answer }) {
        tokio::spawn(fly(Arc::clone(base)));
    }
    // the task is gone with the runtime only
    answered.await.unwrap_or_else(|_| Err(Failed::Unknown("the process ends".to_owned())))
}

/// One flight: group after group, until nobody waits.
async fn fly(base: Arc<Base>) {
    loop {
        let group = base.group.take();
        if group.is_empty() {
            return;
        }
        metrics::histogram!("switchboard_storage_commit_shards").record(group.len() as f64);
        let began = Instant::now();
        together(&base, group).await;
        // as long as the commit took, at most: a quick database is not waited for, a busy one gets larger groups
        sleep(base.group.rest_max.min(began.elapsed())).await;
    }
}

async fn together(base: &Base, group: Vec<Waiting>) {
    let mut all = Batch::default();
    let mut sent = Vec::with_capacity(group.len());
    for waiting in group {
        match Batch::of(waiting.shard, &waiting.commit) {
            Ok(batch) => {
                all.append(batch);
                sent.push(waiting);
            }
            Err(why) => drop(waiting.answer.send(Err(Failed::NotSent(why)))),
        }
    }
    if sent.is_empty() {
        return;
    }
    match base.write(all.query()).await {
        Ok(_) => sent.into_iter().for_each(|waiting| drop(waiting.answer.send(Ok(())))),
        Err(Failed::Refused(_)) if sent.len() > 1 => {
            metrics::counter!("switchboard_storage_groups_refused_total").increment(1);
            for Waiting { shard, commit, answer, .. } in sent {
                let _ = answer.send(alone(base, shard, &commit).await);
            }
        }
        Err(why) => sent.into_iter().for_each(|waiting| drop(waiting.answer.send(Err(why.clone())))),
    }
}

async fn alone(base: &Base, shard: ShardId, commit: &Commit) -> Result<(), Failed> {
    let batch = Batch::of(shard, commit).map_err(Failed::NotSent)?;
    base.write(batch.query()).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(shard: u16, rows: usize) -> (Waiting, oneshot::Receiver<Result<(), Failed>>) {
        let (answer, answered) = oneshot::channel();
        (Waiting { shard: ShardId(shard), commit: Commit::default(), rows, bytes: 0, answer }, answered)
    }

    #[test]
    fn flights_begin_up_to_their_number_and_end_when_nobody_waits() {
        let group = Group::new(2, Duration::ZERO);
        let (one, _a) = waiting(1, 1);
        let (two, _b) = waiting(2, 1);
        let (three, _c) = waiting(3, 1);
        assert!(group.push(one) && group.push(two) && !group.push(three), "the third goes with who lands first");
        assert_eq!(group.take().len(), 3);
        assert!(group.take().is_empty() && group.take().is_empty());
        assert_eq!(group.state.lock().flights, 0);
        assert!(group.push(waiting(4, 1).0), "and flights begin again");
    }

    #[test]
    fn a_group_is_bounded_but_takes_one_whatever_its_size_and_nobody_who_has_gone() {
        let group = Group::new(1, Duration::ZERO);
        let (large, _a) = waiting(1, ROWS_MAX + 1);
        let (gone, b) = waiting(2, 1);
        drop(b);
        let (small, _c) = waiting(3, ROWS_MAX);
        let (last, _d) = waiting(4, 1);
        for one in [large, gone, small, last] {
            group.push(one);
        }
        let shards = |taken: Vec<Waiting>| taken.iter().map(|one| one.shard.0).collect::<Vec<_>>();
        assert_eq!(shards(group.take()), [1]);
        assert_eq!(shards(group.take()), [3]);
        assert_eq!(shards(group.take()), [4]);
        assert!(group.take().is_empty());
    }
}
