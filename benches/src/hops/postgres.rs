//! Commits as a batching writer makes them: whatever has come while one commit ran goes into the next.

use std::str::FromStr as _;
use std::sync::Arc;

use super::pace::{Latencies, Schedule};
use anyhow::Context as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant};

use super::Hops;

/// Messages of one commit, at most.
const BATCH_MAX: usize = 1000;
/// Messages that wait for one connection, at most; beyond that the database does not keep up and the run ends.
const QUEUE: usize = 100_000;

/// Latencies from due to committed, and messages a commit.
pub(super) async fn measure(hops: &Hops) -> anyhow::Result<(Latencies, f64)> {
    let options = PgConnectOptions::from_str(&hops.postgres).context("--postgres")?.options([("synchronous_commit", "on")]);
    let mut admin = PgConnection::connect_with(&options).await.context("the database does not answer")?;
    let fsync: String = sqlx::query_scalar("select current_setting('fsync')").fetch_one(&mut admin).await?;
    anyhow::ensure!(fsync == "on", "fsync is {fsync} in this database: its commits are not durable");
    let table = super::name();
    let create = format!("create table {table} (owner bigint, seq bigint, body bytea not null, primary key (owner, seq))");
    admin.execute(AssertSqlSafe(create)).await?;
    let measured = tokio::select! {
        measured = commits(hops, &options, &table) => measured,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    admin.execute(AssertSqlSafe(format!("drop table {table}"))).await.context("the table can't be removed")?;
    measured
}

async fn commits(hops: &Hops, options: &PgConnectOptions, table: &str) -> anyhow::Result<(Latencies, f64)> {
    let latency = Arc::new(Latencies::default());
    let mut writers = JoinSet::new();
    let mut queues = Vec::new();
    let mut connections = Vec::new();
    for _ in 0..hops.connections {
        connections.push(PgConnection::connect_with(options).await?);
    }
    let schedule = Schedule::new(Instant::now() + Duration::from_millis(500), hops.rate, hops.warmup + hops.duration);
    for connection in connections {
        let (queue, due) = mpsc::channel(QUEUE);
        queues.push(queue);
        let writer = Writer {
            connection,
            insert: format!(
                "insert into {table} (owner, seq, body) select * from unnest($1::bigint[], $2::bigint[], $3::bytea[])"
            ),
            schedule,
            latency: Arc::clone(&latency),
            hops: hops.clone(),
        };
        writers.spawn(writer.run(due));
    }
    let mut full = 0_u64;
    let count = queues.len() as u64;
    let one_of = |number: u64| usize::try_from(number % count).expect("at most 64");
    schedule.run(|number| full += u64::from(queues[one_of(number)].try_send(number).is_err())).await;
    drop(queues);
    let mut sums = (0, 0);
    while let Some(done) = writers.join_next().await {
        let (messages, commits) = done??;
        sums = (sums.0 + messages, sums.1 + commits);
    }
    anyhow::ensure!(full == 0, "{full} messages found the queue full: the database does not keep up");
    let latency = Arc::into_inner(latency).context("a writer still holds the figures")?;
    Ok((latency, sums.0 as f64 / f64::from(u32::try_from(sums.1).unwrap_or(u32::MAX)).max(1.0)))
}

struct Writer {
    connection: PgConnection,
    insert: String,
    schedule: Schedule,
    latency: Arc<Latencies>,
    hops: Hops,
}

impl Writer {
    /// Commits what waits until nothing more comes. Returns messages and commits.
    async fn run(mut self, mut due: mpsc::Receiver<u64>) -> anyhow::Result<(u64, u64)> {
        let (mut messages, mut commits) = (0, 0);
        let mut batch = Vec::with_capacity(BATCH_MAX);
        let body = vec![b'x'; self.hops.bytes];
        while due.recv_many(&mut batch, BATCH_MAX).await > 0 {
            let rows = batch.iter().flat_map(|number| (0..self.hops.rows as u64).map(|row| (spread(*number, row), *number)));
            let (owners, seqs): (Vec<i64>, Vec<i64>) = rows.map(|(owner, seq)| (owner, seq.cast_signed())).unzip();
            let bodies = vec![&body[..]; owners.len()];
            let insert = sqlx::query(AssertSqlSafe(self.insert.clone())).bind(owners).bind(seqs).bind(bodies);
            insert.execute(&mut self.connection).await?; // alone, it is a transaction
            (messages, commits) = (messages + batch.len() as u64, commits + 1);
            for number in batch.drain(..).filter(|number| *number >= self.hops.ignored()) {
                self.latency.since(self.schedule.due(number));
            }
        }
        self.connection.close().await?;
        Ok((messages, commits))
    }
}

/// Owners as mailboxes would have them: 10,000, far apart from each other in the index, two rows of a message never the same.
fn spread(number: u64, row: u64) -> i64 {
    ((number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) % 10_000 * 128 + row).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_message_belong_to_different_owners() {
        let keys: std::collections::HashSet<_> = (0..5000).flat_map(|n| (0..100).map(move |row| (spread(n, row), n))).collect();
        assert_eq!(keys.len(), 500_000);
    }
}
