//! `switchboard topics`, `shard`, `partition`, `stream-epoch` and `log`: what a person does to a cluster.

use std::io::Write as _;

use anyhow::{Context as _, bail};
use gateway::node::now_ms;
use router::log::kafka::topics;
use storage::store::postgres::shards::ShardRow;
use storage::store::postgres::{move_shard, shards};

use super::config::Cluster;
use super::mend;
use crate::args::{Log, Partition, Shard, StreamEpoch, Topics};
use crate::config::Settings;

fn cluster(settings: &Settings) -> anyhow::Result<&Cluster> {
    settings.cluster.as_ref().context("this needs the section [cluster] in the configuration (docs/configuration.md)")
}

fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().context("the runtime")?.block_on(work)
}

/// Makes or verifies the topics.
pub(crate) fn topics(settings: &Settings, command: Topics) -> anyhow::Result<()> {
    let kafka = &cluster(settings)?.kafka;
    block_on(async {
        if command == Topics::Create {
            topics::create(kafka).await.context("cluster.kafka")?;
        }
        match topics::verify(kafka).await {
            Ok(()) => println!("the topics are what they must be"),
            Err(faults) => {
                let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
                bail!("the topics are not what they must be:\n  {}", faults.join("\n  "));
            }
        }
        Ok(())
    })
}

/// Looks at partitions of the log, or gets one to go on.
pub(crate) fn partition(settings: &Settings, command: &Partition) -> anyhow::Result<()> {
    let cluster = cluster(settings)?;
    block_on(async {
        match command {
            Partition::List { troubled } => mend::list(cluster, *troubled).await,
            Partition::Skip(skip) => mend::skip(cluster, skip).await,
        }
    })
}

/// Raises the incarnation of mailboxes.
pub(crate) fn stream_epoch(settings: &Settings, command: &StreamEpoch) -> anyhow::Result<()> {
    let StreamEpoch::Raise { shards } = command;
    let cluster = cluster(settings)?;
    block_on(mend::raise_stream_epochs(cluster, shards))
}

/// Begins on a new log.
pub(crate) fn log(settings: &Settings, command: &Log) -> anyhow::Result<()> {
    let Log::Adopt(adopt) = command;
    let cluster = cluster(settings)?;
    block_on(mend::adopt(cluster, adopt))
}

/// Does something about the virtual shards.
pub(crate) fn shard(settings: &Settings, command: Shard) -> anyhow::Result<()> {
    let postgres = &cluster(settings)?.postgres;
    block_on(async {
        match command {
            Shard::Init => {
                let done = shards::init(postgres).await?;
                println!("{} shards made, {} databases joined", done.shards_made, done.joined);
            }
            Shard::Add(database) => {
                postgres.database(&database.database)?;
                let done = shards::init(postgres).await?;
                let joined = if done.joined > 0 { "has joined, empty: move shards to it" } else { "was in the cluster already" };
                println!("{} {joined}", database.database);
            }
            Shard::List => list(&shards::list(postgres).await?)?,
            Shard::Move(to) => {
                let moved = move_shard::move_shard(postgres, to.shard, &to.to).await?;
                println!(
                    "shard {} is in {}: {} rows in {} rounds, paused for {:.1?}",
                    to.shard, to.to, moved.rows, moved.rounds, moved.pause
                );
            }
            Shard::Abort(one) => {
                move_shard::abort(postgres, one.shard).await?;
                println!("shard {} stays where it was", one.shard);
            }
        }
        Ok(())
    })
}

fn list(rows: &[ShardRow]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{:>5}  {:<16} {:<8} {:>12} {:>12} {:>10} {:>12}  NOTE",
        "SHARD", "DATABASE", "STATE", "OWNER EPOCH", "OFFSET", "MAILBOXES", "EVENTS"
    )?;
    for row in rows {
        let ShardRow { shard, database, state, owner_epoch, offset, mailboxes, events, .. } = row;
        let line = format!("{shard:>5}  {database:<16} {state:<8} {owner_epoch:>12} {offset:>12} {mailboxes:>10} {events:>12}");
        let line = format!("{line}  {}", note(row, rows, now_ms()));
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// What there is to say of a row: where the shard has moved, or that a move was left unfinished, since when, and what to do.
fn note(row: &ShardRow, rows: &[ShardRow], now_ms: u64) -> String {
    let ShardRow { shard, database, state, moved_to, moving, worked_on, .. } = row;
    let copy = rows.iter().find(|other| other.shard == *shard && other.state == "copying");
    let since = copy.and_then(|copy| copy.began_ms).map(|began| format!(", begun {} s ago", now_ms.saturating_sub(began) / 1000));
    let since = since.unwrap_or_default();
    let left = |to: &str| format!("`shard move {shard} --to {to}` again, or `shard abort {shard}`");
    match (state.as_str(), copy.map(|copy| copy.database.as_str())) {
        ("open", Some(to)) if *worked_on => format!("is copied to {to}{since}"),
        ("open", Some(to)) => format!("a move to {to} was left{since}: {}", left(to)),
        ("open", None) if *moving && !worked_on => format!("a move was left: `shard abort {shard}`"),
        ("moved", Some(to)) if *worked_on => format!("is in the pause of its move to {to}{since}"),
        ("moved", Some(to)) => format!("SERVED BY NOBODY: a move to {to} was left in its pause{since}: {}", left(to)),
        ("moved", None) => format!("moved to {}", moved_to.as_deref().unwrap_or("?")),
        ("copying", Some(to)) if to == database => "a copy".to_owned(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(database: &str, state: &str) -> ShardRow {
        ShardRow {
            shard: 17,
            database: database.into(),
            state: state.into(),
            moved_to: (state == "moved").then(|| "b".into()),
            moving: false,
            began_ms: (state == "copying").then_some(1_000),
            worked_on: false,
            map_version: 1,
            owner_epoch: 1,
            offset: 0,
            mailboxes: 0,
            events: 0,
        }
    }

    #[test]
    fn a_move_that_was_left_is_named_with_its_time_and_what_to_do() {
        let noted = |first: ShardRow, others: &[ShardRow]| {
            let rows: Vec<_> = std::iter::once(first).chain(others.iter().cloned()).collect();
            note(&rows[0], &rows, 61_000)
        };
        let copy = row("b", "copying");
        assert_eq!(noted(row("a", "open"), &[]), "");
        assert_eq!(noted(row("a", "moved"), &[row("b", "open")]), "moved to b");
        assert_eq!(
            noted(row("a", "open"), std::slice::from_ref(&copy)),
            "a move to b was left, begun 60 s ago: `shard move 17 --to b` again, or `shard abort 17`"
        );
        assert!(noted(row("a", "moved"), std::slice::from_ref(&copy)).starts_with("SERVED BY NOBODY"));
        let worked = ShardRow { worked_on: true, moving: true, ..row("a", "open") };
        assert_eq!(noted(worked, &[copy]), "is copied to b, begun 60 s ago");
        assert_eq!(noted(ShardRow { moving: true, ..row("a", "open") }, &[]), "a move was left: `shard abort 17`");
    }
}
