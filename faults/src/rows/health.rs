//! Health tells the truth: what stands still anywhere on a message's way is seen at a gateway's readiness, by its canaries, and so is its return.
//! Without Redis messages come, late: a gateway stays ready then, and a metric says it.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::{Instant, sleep};

use super::Outcome;
use crate::stand::{Stand, get};

/// A load balancer must know by then.
const SEEN_WITHIN: Duration = Duration::from_secs(15);

fn is_well(stand: &Stand, gateway: &str, kind: &str) -> bool {
    let redis = || stand.metric("gateway-1", "switchboard_registry_reachable", "") > 0.0;
    if kind == "redis" { redis() } else { is_ready(gateway) }
}

fn is_ready(address: &str) -> bool {
    get(address, "/ready").is_some_and(|(status, _)| status == 200)
}

pub(crate) async fn standstill_is_seen(stand: &Stand) -> Result<Outcome> {
    let gateway = stand.address("gateway-1")?;
    let mut said = Vec::new();
    for kind in ["router", "storage", "kafka", "redis", "postgres"] {
        stand
            .until(&format!("all is well before {kind} stands still"), || is_ready(&gateway) && is_well(stand, &gateway, kind))
            .await?;
        let names = stand.members(kind);
        for name in &names {
            stand.does("pause", name)?;
        }
        let began = Instant::now();
        let mut well = true;
        while well && began.elapsed() < SEEN_WITHIN {
            sleep(Duration::from_millis(100)).await;
            well = is_well(stand, &gateway, kind);
        }
        let seen = began.elapsed();
        if kind == "redis" {
            ensure!(is_ready(&gateway), "a gateway without Redis is not ready");
        }
        for name in &names {
            stand.does("resume", name)?;
        }
        ensure!(!well, "{kind}: nothing is to be seen {SEEN_WITHIN:?} after everything of it stood still");
        let began = Instant::now();
        stand.all_ready().await?;
        said.push(format!("{kind} seen after {seen:.1?}, ready {:.1?} after its return", began.elapsed()));
    }
    Ok(Outcome { seen: Vec::new(), more: said.join("; ") })
}
