//! What an operator does on a good day: processes replaced, shards moved, processes added and taken away.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::{Instant, sleep};

use super::{BEFORE, Outcome, usual};
use crate::load::under_load;
use crate::stand::Stand;

/// Each process ends by SIGTERM and comes back: no send fails, and its work goes on elsewhere at once.
pub(crate) async fn rolling(stand: &Stand) -> Result<Outcome> {
    let mut stretches = Vec::new();
    for name in ["storage-1", "router-1", "gateway-1", "storage-2", "router-2", "gateway-2"] {
        let seen = under_load(stand, usual("F17"), async {
            sleep(Duration::from_millis(500)).await;
            stand.does("restart", name)?;
            stand.ready(name).await?;
            sleep(Duration::from_secs(4)).await;
            Ok(())
        })
        .await?;
        ensure!(seen.cut == 0, "{name}: a drain cuts nobody with sends in flight");
        stretches.push(seen);
    }
    Ok(Outcome { seen: stretches, more: String::new() })
}

pub(crate) async fn shards_move(stand: &Stand) -> Result<Outcome> {
    let shards = [0_u16, 3, 7, 11];
    let mut pauses = Vec::new();
    let mut killed = 0;
    let seen = under_load(stand, usual("F22"), async {
        sleep(BEFORE).await;
        for (at, shard) in shards.iter().enumerate() {
            let to = if stand.database_of(*shard)? == "a" { "b" } else { "a" };
            if at % 2 == 1 {
                let place = ["move:copied", "move:moved"][at / 2 % 2];
                stand.halt_at(place)?;
                let (ok, _) = stand.admin(&["shard", "move", &shard.to_string(), "--to", to])?;
                if !ok && stand.has_halted_at(place) {
                    stand.fault(format!("death of a mover at {place}"));
                    killed += 1;
                }
            }
            stand.fault(format!("move of shard {shard}"));
            let (ok, said) = stand.admin(&["shard", "move", &shard.to_string(), "--to", to])?;
            ensure!(ok, "shard {shard} to {to}: {said}");
            ensure!(stand.database_of(*shard)? == to, "shard {shard} is not in {to}");
            pauses.push(said.rsplit("paused for ").next().unwrap_or_default().trim().to_owned());
        }
        sleep(BEFORE).await;
        Ok(())
    })
    .await?;
    ensure!(killed == 2, "a mover was to be killed twice");
    Ok((seen, format!("paused {}", pauses.join(", "))).into())
}

/// A third storage process and a third router take their share and give it back.
pub(crate) async fn join_and_leave(stand: &Stand) -> Result<Outcome> {
    let mut took = Duration::ZERO;
    let owned = |name: &str| stand.metric(name, "switchboard_partitions_owned", "");
    let seen = under_load(stand, usual("J1"), async {
        sleep(BEFORE).await;
        let began = Instant::now();
        stand.does("add", "storage")?;
        stand.does("add", "router")?;
        for name in ["storage-3", "router-3"] {
            stand.until(&format!("{name} has a share"), || owned(name) > 0.0).await?;
        }
        took = began.elapsed();
        sleep(BEFORE).await;
        for name in ["storage-3", "router-3"] {
            stand.does("remove", name)?;
        }
        sleep(BEFORE).await;
        Ok(())
    })
    .await?;
    for (kind, all) in [("storage", 24.0), ("router", 12.0)] {
        let both = || stand.members(kind).iter().map(|name| owned(name)).sum::<f64>();
        stand.until(&format!("all partitions of {kind} are owned again"), || (both() - all).abs() < 0.5).await?;
    }
    Ok((seen, format!("the new ones had their share after {took:.1?}")).into())
}
