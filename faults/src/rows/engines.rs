//! Kafka and Postgres, killed; each part, standing still.

use std::time::Duration;

use anyhow::{Result, ensure};
use loadtest::record::What;
use tokio::time::sleep;

use super::{BEFORE, Outcome, usual};
use crate::load::under_load;
use crate::stand::Stand;

/// One of the brokers of a cluster of three, or the only one.
pub(crate) async fn broker_killed(stand: &Stand) -> Result<Outcome> {
    killed_for(stand, "F4", "kafka-1", BEFORE).await
}

pub(crate) async fn database_killed(stand: &Stand) -> Result<Outcome> {
    killed_for(stand, "F7", "postgres-a", Duration::from_secs(3)).await
}

/// Killed, and started so much later.
pub(super) async fn killed_for(stand: &Stand, row: &str, name: &str, dead: Duration) -> Result<Outcome> {
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

pub(crate) async fn each_stands_still(stand: &Stand) -> Result<Outcome> {
    stand_still(stand, "F8e", Duration::from_secs(5)).await
}

pub(crate) async fn each_stands_still_long(stand: &Stand) -> Result<Outcome> {
    stand_still(stand, "F8l", Duration::from_secs(45)).await
}

pub(crate) async fn each_stands_still_for_minutes(stand: &Stand) -> Result<Outcome> {
    stand_still(stand, "F8x", Duration::from_secs(120)).await
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
