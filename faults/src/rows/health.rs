//! Health tells the truth: what stands still anywhere on a message's way is seen at a gateway's readiness, by its canaries, and so is its return.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::{Instant, sleep};

use super::Outcome;
use crate::stand::{Stand, get};

/// A load balancer must know by then.
const SEEN_WITHIN: Duration = Duration::from_secs(15);

fn is_ready(address: &str) -> bool {
    get(address, "/ready").is_some_and(|(status, _)| status == 200)
}

pub(crate) async fn standstill_is_seen(stand: &Stand) -> Result<Outcome> {
    let gateway = stand.address("gateway-1")?;
    let mut said = Vec::new();
    for kind in ["router", "storage", "kafka", "redis", "postgres"] {
        ensure!(is_ready(&gateway), "the gateway is not ready before {kind} stands still");
        let names = stand.members(kind);
        for name in &names {
            stand.does("pause", name)?;
        }
        let began = Instant::now();
        while is_ready(&gateway) && began.elapsed() < SEEN_WITHIN {
            sleep(Duration::from_millis(100)).await;
        }
        let (seen, not) = (began.elapsed(), is_ready(&gateway));
        for name in &names {
            stand.does("resume", name)?;
        }
        ensure!(!not, "{kind}: the gateway is ready {SEEN_WITHIN:?} after everything of it stood still");
        let began = Instant::now();
        stand.all_ready().await?;
        said.push(format!("{kind} seen after {seen:.1?}, ready {:.1?} after its return", began.elapsed()));
    }
    Ok(Outcome { seen: Vec::new(), more: said.join("; ") })
}
