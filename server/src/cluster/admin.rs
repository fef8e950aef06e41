//! `switchboard topics` and `switchboard shard`: what a person does to a cluster.

use std::io::Write as _;

use anyhow::{Context as _, bail};
use router::log::kafka::topics;
use storage::store::postgres::{move_shard, shards};

use super::config::Cluster;
use crate::args::{Shard, Topics};
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

fn list(rows: &[shards::ShardRow]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{:>5}  {:<16} {:<8} {:>12} {:>12} {:>10} {:>12}",
        "SHARD", "DATABASE", "STATE", "OWNER EPOCH", "OFFSET", "MAILBOXES", "EVENTS"
    )?;
    for row in rows {
        let state = match &row.moved_to {
            Some(to) => format!("{} to {to}", row.state),
            None => row.state.clone(),
        };
        let shards::ShardRow { shard, database, owner_epoch, offset, mailboxes, events, .. } = row;
        writeln!(out, "{shard:>5}  {database:<16} {state:<8} {owner_epoch:>12} {offset:>12} {mailboxes:>10} {events:>12}")?;
    }
    Ok(())
}
