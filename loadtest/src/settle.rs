//! The end of a recording: every send has its answer, a fresh device of each user has read everything back, and the others have caught up to it.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::time::timeout;

use crate::actor::{Actor, Status};
use crate::audit;
use crate::client::Target;
use crate::record::{ClientId, Entry, Recorder};
use crate::tokens::Account;

/// Who is late is named, but not everybody.
const NAMED: usize = 5;

/// Waits until every actor passes the test.
///
/// # Errors
/// When some do not within `patience`, or will never connect again; they are named.
pub async fn all_reach(actors: &[Actor], what: &str, patience: Duration, test: impl Fn(&Status) -> bool + Copy) -> Result<()> {
    let all = async {
        for actor in actors {
            actor.wait_until(test).await.map_err(anyhow::Error::msg).with_context(|| what.to_owned())?;
        }
        Ok(())
    };
    if let Ok(reached) = timeout(patience, all).await {
        return reached;
    }
    let late = actors.iter().filter(|actor| !test(&actor.status())).take(NAMED);
    let late: Vec<_> = late.map(|actor| format!("{}: {:?}", actor.client(), actor.status())).collect();
    bail!("{what}: not reached within {patience:?} by {late:#?}")
}

/// Everything is settled; a fresh device of each user reads its mailbox and these conversations back; the actors catch up to it and stop.
///
/// # Errors
/// When something of that does not come about within `patience`.
pub async fn read_back(
    target: &Target,
    accounts: &[Account],
    actors: Vec<Actor>,
    (conversations, patience): (impl Fn(u64) -> Vec<String>, Duration),
    recorder: &Recorder,
) -> Result<Vec<Entry>> {
    all_reach(&actors, "settled", patience, |status| status.attached && status.unsettled == 0).await?;
    for account in accounts {
        let (client, target) = (ClientId::new(account.user, "audit"), target.with_token(&account.token));
        let conversations = conversations(account.user);
        let read = timeout(patience, audit::read_back(&target, &client, &conversations, recorder)).await;
        let head = read.with_context(|| format!("{client} has not read its mailbox within {patience:?}"))?;
        let head = head.with_context(|| format!("reading {client} back"))?;
        for actor in actors.iter().filter(|actor| actor.client().user == account.user) {
            let caught_up = timeout(patience, actor.wait_until(|status| status.cursor >= head)).await;
            let caught_up = caught_up.with_context(|| format!("{} stays behind {head}: {:?}", actor.client(), actor.status()))?;
            caught_up.map_err(anyhow::Error::msg)?;
        }
    }
    for actor in actors {
        actor.stop().await?;
    }
    Ok(recorder.recording()?)
}
