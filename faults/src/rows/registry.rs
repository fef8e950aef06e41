//! Redis, emptied, killed, standing still, set back, failed over: registry and leases are in it, and messages are not.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::time::{Instant, sleep};

use super::engines::killed_for;
use super::{BEFORE, Outcome, usual};
use crate::load::under_load;
use crate::stand::{PATIENCE, Stand, get};

const REDIS: &str = "redis-1";
/// Where Redis is with a replica.
const BOTH: [&str; 2] = ["redis-1", "redis-2"];
/// How old the copy is that it comes back with. Longer than any lease.
const OLD: Duration = Duration::from_secs(20);

/// One command, and what it said.
fn ask(stand: &Stand, name: &str, command: &[&str]) -> Result<String> {
    let url = stand.cluster(&["url", name])?;
    let done = Command::new("redis-cli").args(["-e", "-u", &url]).args(command).output().context("redis-cli")?;
    ensure!(done.status.success(), "{command:?}: {done:?}");
    Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned())
}

pub(crate) async fn emptied(stand: &Stand) -> Result<Outcome> {
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
    let name = if stand.sentinels { primary(stand)? } else { REDIS };
    stand.fault(format!("flush {name}"));
    ask(stand, name, &["FLUSHALL"]).map(drop)
}

pub(crate) async fn stands_still(stand: &Stand) -> Result<Outcome> {
    let seen = under_load(stand, usual("F6b"), async {
        sleep(BEFORE).await;
        stand.does("pause", REDIS)?;
        sleep(Duration::from_secs(15)).await;
        let status = get(&stand.address("gateway-1")?, "/metrics").map_or(0, |(status, _)| status);
        ensure!(status == 200, "the gateway does not answer: {status}");
        stand.does("resume", REDIS)?;
        sleep(BEFORE).await;
        Ok(())
    })
    .await?;
    Ok(seen.all_felt()?.into())
}

pub(crate) async fn killed(stand: &Stand) -> Result<Outcome> {
    killed_for(stand, "F6c", REDIS, BEFORE).await
}

/// It comes back with entries and leases of processes that have died since, and without those of the living.
pub(crate) async fn set_back(stand: &Stand) -> Result<Outcome> {
    let dump = std::path::PathBuf::from(stand.cluster(&["data", REDIS])?).join("dump.rdb");
    let outcome = under_load(stand, usual("F6d"), async {
        ask(stand, REDIS, &["SAVE"])?;
        for name in ["gateway-1", "router-1", "storage-1"] {
            sleep(BEFORE).await;
            stand.does("kill", name)?;
            stand.does("start", name)?;
        }
        sleep(OLD).await;
        stand.does("kill", REDIS)?;
        stand.does("start", REDIS)?;
        let keys = ask(stand, REDIS, &["DBSIZE"])?;
        ensure!(keys != "0", "it came back empty");
        sleep(2 * BEFORE).await;
        Ok(())
    })
    .await;
    let seen = outcome?;
    std::fs::remove_file(dump)?;
    Ok(seen.into())
}

/// The primary dies and its replica takes over; then the other way round.
pub(crate) async fn failed_over(stand: &Stand) -> Result<Outcome> {
    ensure!(stand.sentinels, "this row needs --sentinels");
    let mut took = Duration::ZERO;
    let seen = under_load(stand, usual("F6r"), async {
        for _ in 0..2 {
            sleep(BEFORE).await;
            let dies = primary(stand)?;
            stand.does("kill", dies)?;
            let began = Instant::now();
            let heir = BOTH.into_iter().find(|name| *name != dies).unwrap_or_default();
            until(async || primary(stand).is_ok_and(|now| now == heir)).await?;
            took = took.max(began.elapsed());
            sleep(BEFORE).await;
            stand.does("start", dies)?;
            until(async || ask(stand, dies, &["ROLE"]).is_ok_and(|role| role.contains("connected"))).await?;
        }
        sleep(BEFORE).await;
        Ok(())
    })
    .await?;
    Ok((seen, format!("the replica had taken over within {took:.1?}")).into())
}

/// Who takes writes.
fn primary(stand: &Stand) -> Result<&'static str> {
    let takes_writes = |name: &&str| ask(stand, name, &["ROLE"]).is_ok_and(|role| role.starts_with("master"));
    match BOTH.into_iter().filter(takes_writes).collect::<Vec<_>>()[..] {
        [one] => Ok(one),
        ref none_or_both => bail!("primaries: {none_or_both:?}"),
    }
}

async fn until(condition: impl AsyncFn() -> bool) -> Result<()> {
    let began = Instant::now();
    while !condition().await {
        ensure!(began.elapsed() < PATIENCE, "no other Redis takes over");
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}
