//! A database that comes back without its newest commits: its standby was behind when it was promoted, or a backup was put back. What is missing
//! comes again from the log, to the same places.

use std::collections::HashSet;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::time::{Instant, sleep};

use super::{BEFORE, GATEWAYS, Outcome, usual};
use crate::load::under_load;
use crate::stand::{PATIENCE, Stand};

const DATABASE: &str = "postgres-a";
/// How long the copy is behind.
const BEHIND: Duration = Duration::from_secs(4);
/// How old the backup is.
const OLD: Duration = Duration::from_secs(20);

/// The primary dies for ever; its asynchronous standby, which lacks some seconds, takes its place.
pub(crate) async fn standby_promoted(stand: &Stand) -> Result<Outcome> {
    let copy = Copy { row: "F7s", make: &["follow", "stop-following"], put: "promote", age: BEHIND };
    comes_back_as_it_was(stand, copy).await
}

/// The database is lost, and put back as it was when it was last backed up.
pub(crate) async fn backup_restored(stand: &Stand) -> Result<Outcome> {
    comes_back_as_it_was(stand, Copy { row: "F7b", make: &["backup"], put: "restore", age: OLD }).await
}

struct Copy<'a> {
    row: &'a str,
    make: &'a [&'a str],
    put: &'a str,
    age: Duration,
}

async fn comes_back_as_it_was(stand: &Stand, copy: Copy<'_>) -> Result<Outcome> {
    let (mut missing, mut took) = (0, Duration::ZERO);
    let seen = under_load(stand, usual(copy.row), async {
        sleep(BEFORE).await;
        for step in copy.make {
            stand.cluster(&[step, DATABASE])?;
        }
        let then = events(stand)?.len();
        sleep(copy.age).await;
        let before = events(stand)?;
        missing = before.len().saturating_sub(then);
        stand.does("kill", DATABASE)?;
        stand.does(copy.put, DATABASE)?;
        // who comes now has more than its mailbox
        stand.does("kill", GATEWAYS[0])?;
        stand.does("start", DATABASE)?;
        stand.does("start", GATEWAYS[0])?;
        let began = Instant::now();
        while let Some(other) = before.difference(&events(stand)?).next() {
            ensure!(began.elapsed() < PATIENCE, "not as it was before: {other}");
            sleep(Duration::from_millis(200)).await;
        }
        took = began.elapsed();
        sleep(BEFORE).await;
        Ok(())
    })
    .await?;
    ensure!(missing > 0, "nothing was committed since the copy: it did not bite");
    ensure!(seen.closed > 0, "nobody had to attach again");
    Ok((
        seen,
        format!("{missing} events that were committed were not in it, and were again where they had been within {took:.1?}"),
    )
        .into())
}

/// Every event of the database: its place in its mailbox, its place in its conversation, its time, and what it says.
const EVENTS: &str = "SELECT shard, owner, seq, position, encode(conversation, 'hex'), at_ms, refusal, md5(record) \
                      FROM mailbox LEFT JOIN message USING (shard, conversation, position)";

fn events(stand: &Stand) -> Result<HashSet<String>> {
    let url = stand.cluster(&["url", DATABASE])?;
    let asked = Command::new("psql").args(["-XqAt", "-c", EVENTS, &url]).output().context("psql")?;
    ensure!(asked.status.success(), "psql: {}", String::from_utf8_lossy(&asked.stderr));
    Ok(String::from_utf8(asked.stdout)?.lines().map(str::to_owned).collect())
}
