//! Our own processes: killed from outside, killed at named places of their work, standing still.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::sleep;

use super::{BEFORE, GATEWAYS, Outcome, usual};
use crate::load::under_load;
use crate::stand::Stand;

/// The load alone: what the others are compared with.
pub(crate) async fn nothing(stand: &Stand) -> Result<Outcome> {
    let seen = under_load(stand, usual("F0"), async {
        sleep(Duration::from_secs(5)).await;
        Ok(())
    })
    .await?;
    ensure!(seen.closed == 0, "nothing happened, and connections broke");
    Ok(seen.into())
}

pub(crate) async fn gateway_killed(stand: &Stand) -> Result<Outcome> {
    let seen = under_load(stand, usual("F1"), async {
        sleep(BEFORE).await;
        stand.does("kill", "gateway-1")?;
        sleep(BEFORE).await;
        stand.does("start", "gateway-1")?;
        sleep(BEFORE).await;
        Ok(())
    })
    .await?;
    ensure!(seen.closed > 0, "the kill did not bite");
    Ok(seen.into())
}

/// Kills whoever comes first to each of these places, and starts it again.
async fn killed_at(stand: &Stand, row: &str, places: &[&str], kind: &str) -> Result<Outcome> {
    let seen = under_load(stand, usual(row), async {
        for place in places {
            sleep(Duration::from_secs(1)).await;
            stand.halt_at(place)?;
            stand.halted_at(place).await?;
            sleep(Duration::from_millis(500)).await;
            for name in stand.members(kind) {
                stand.does("start", &name)?;
            }
        }
        sleep(BEFORE).await;
        Ok(())
    })
    .await?;
    Ok(seen.into())
}

pub(crate) async fn routers_killed(stand: &Stand) -> Result<Outcome> {
    killed_at(stand, "F2", &["router:read", "router:appending", "router:appended", "router:checkpoint"], "router").await
}

pub(crate) async fn owners_killed(stand: &Stand) -> Result<Outcome> {
    killed_at(stand, "F3", &["storage:planned", "storage:committing", "storage:committed", "storage:pushed"], "storage").await
}

/// A frozen owner is taken over from; when it goes on, the database refuses what it still wants to write.
pub(crate) async fn owner_stands_still(stand: &Stand) -> Result<Outcome> {
    let fenced = || stand.metric("storage-1", "switchboard_partitions_ended_total", "why=\"taken\"");
    let before = fenced();
    let seen = under_load(stand, usual("F8"), async {
        sleep(BEFORE).await;
        stand.does("pause", "storage-1")?;
        sleep(Duration::from_secs(6)).await;
        stand.does("resume", "storage-1")?;
        sleep(Duration::from_secs(4)).await;
        Ok(())
    })
    .await?;
    let refused = fenced() - before;
    ensure!(refused > 0.0, "nobody was fenced: the standstill did not bite\n{}", stand.log("storage-1"));
    Ok((seen, format!("{refused} partitions taken from the frozen one")).into())
}

/// Everybody waits between registering and reading, and between commit and look-up, while clients are cut off again and again.
pub(crate) async fn attach_elsewhere(stand: &Stand) -> Result<Outcome> {
    let seen = under_load(stand, usual("A1"), async {
        for (registered, unpushed) in [(200, 0), (0, 200), (150, 150)] {
            stand.hold_at("attach:registered", registered)?;
            stand.hold_at("storage:unpushed", unpushed)?;
            for gateway in GATEWAYS {
                sleep(Duration::from_millis(700)).await;
                stand.does("kill", gateway)?;
                sleep(Duration::from_millis(700)).await;
                stand.does("start", gateway)?;
            }
        }
        stand.hold_at("attach:registered", 0)?;
        stand.hold_at("storage:unpushed", 0)?;
        sleep(BEFORE).await;
        Ok(())
    })
    .await?;
    ensure!(seen.closed > 0, "nobody was cut off");
    Ok(seen.into())
}
