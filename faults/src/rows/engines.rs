//! Kafka, Redis and Postgres: killed, emptied, standing still.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use loadtest::record::What;
use tokio::time::sleep;

use super::{BEFORE, Outcome, usual};
use crate::load::under_load;
use crate::stand::{Stand, get};

/// One of the brokers of a cluster of three, or the only one.
pub(crate) async fn broker_killed(stand: &Stand) -> Result<Outcome> {
    killed_for(stand, "F4", "kafka-1", BEFORE).await
}

pub(crate) async fn redis_killed(stand: &Stand) -> Result<Outcome> {
    killed_for(stand, "F6c", "redis-1", BEFORE).await
}

pub(crate) async fn database_killed(stand: &Stand) -> Result<Outcome> {
    killed_for(stand, "F7", "postgres-a", Duration::from_secs(3)).await
}

async fn killed_for(stand: &Stand, row: &str, name: &str, dead: Duration) -> Result<Outcome> {
    let seen = under_load(stand, usual(row), async {
        sleep(BEFORE).await;
        stand.does("kill", name)?;
        sleep(dead).await;
        stand.does("start", name)?;
        sleep(BEFORE).await;
        Ok(())
    })
    .await?;
    Ok(seen.all_felt()?.into())
}

/// With one of three brokers there is no quorum: nothing may be accepted until another one is back.
pub(crate) async fn two_brokers_killed(stand: &Stand) -> Result<Outcome> {
    ensure!(stand.brokers == 3, "this row needs --brokers 3");
    let accepted = || stand.count(|entry| matches!(entry.what, What::Accepted { .. }));
    let mut meanwhile = 0;
    let seen = under_load(stand, usual("F5"), async {
        sleep(BEFORE).await;
        stand.does("kill", "kafka-2")?;
        stand.does("kill", "kafka-3")?;
        // what both had is acknowledged within a moment, or not at all
        sleep(Duration::from_secs(1)).await;
        let before = accepted();
        sleep(Duration::from_secs(5)).await;
        meanwhile = accepted() - before;
        stand.does("start", "kafka-2")?;
        stand.does("start", "kafka-3")?;
        sleep(BEFORE).await;
        Ok(())
    })
    .await?;
    ensure!(meanwhile == 0, "{meanwhile} messages were accepted with one of three brokers");
    Ok((seen, "nothing was accepted with one broker".to_owned()).into())
}

pub(crate) async fn redis_flushed(stand: &Stand) -> Result<Outcome> {
    let entered = || stand.metric("gateway-1", "switchboard_sessions_entered_again_total", "");
    let before = entered();
    let seen = under_load(stand, usual("F6a"), async {
        for _ in 0..3 {
            sleep(BEFORE).await;
            flush(stand)?;
        }
        sleep(BEFORE).await;
        Ok(())
    })
    .await?;
    ensure!(entered() > before, "no gateway has noticed that Redis was empty");
    Ok(seen.into())
}

/// Empties Redis.
pub(crate) fn flush(stand: &Stand) -> Result<()> {
    let url = stand.cluster(&["url", "redis-1"])?;
    stand.fault("flush redis-1".to_owned());
    let done = Command::new("redis-cli").args(["-u", &url, "FLUSHALL"]).output().context("redis-cli")?;
    ensure!(done.status.success(), "FLUSHALL: {done:?}");
    Ok(())
}

pub(crate) async fn redis_stands_still(stand: &Stand) -> Result<Outcome> {
    let seen = under_load(stand, usual("F6b"), async {
        sleep(BEFORE).await;
        stand.does("pause", "redis-1")?;
        sleep(Duration::from_secs(15)).await;
        let status = get(&stand.address("gateway-1")?, "/metrics").map_or(0, |(status, _)| status);
        ensure!(status == 200, "the gateway does not answer: {status}");
        stand.does("resume", "redis-1")?;
        sleep(BEFORE).await;
        Ok(())
    })
    .await?;
    Ok(seen.all_felt()?.into())
}

pub(crate) async fn each_stands_still(stand: &Stand) -> Result<Outcome> {
    stand_still(stand, "F8e", Duration::from_secs(5)).await
}

pub(crate) async fn each_stands_still_long(stand: &Stand) -> Result<Outcome> {
    stand_still(stand, "F8l", Duration::from_secs(45)).await
}

async fn stand_still(stand: &Stand, row: &str, still: Duration) -> Result<Outcome> {
    let mut stretches = Vec::new();
    for name in ["gateway-1", "router-1", "storage-1", "kafka-1", "redis-1", "postgres-a"] {
        let seen = under_load(stand, usual(row), async {
            sleep(BEFORE).await;
            stand.does("pause", name)?;
            sleep(still).await;
            stand.does("resume", name)?;
            sleep(2 * BEFORE).await;
            Ok(())
        })
        .await?;
        stretches.push(seen.all_felt()?);
    }
    Ok(Outcome { seen: stretches, more: String::new() })
}
