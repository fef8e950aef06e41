//! One user at two gateways has the limits of one, not of two.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::future::try_join_all;
use loadtest::client::Client;
use loadtest::frame::{Hello, ServerFrame, direct_name};
use loadtest::tokens::Account;
use tokio::time::{Instant, timeout};

use super::clients::accepted;
use super::pair::attached;
use super::{GATEWAYS, Outcome};
use crate::stand::{PATIENCE, Stand};

/// What the stand's gateways leave as it is: sends a second, as many at once after a pause, sockets of a user.
const SENDS_PER_S: f64 = 50.0;
const BURST: f64 = 100.0;
const SOCKETS: usize = 32;
/// Devices at each gateway that send as fast as they may.
const SENDERS: usize = 3;
const SENDING: Duration = Duration::from_secs(20);
/// Without an account for both, a user would send twice as much.
const MOST: f64 = 1.25;

/// Sends as fast as they are taken, and sockets as many as are let in.
pub(crate) async fn one_user(stand: &Stand) -> Result<Outcome> {
    let accounts = stand.accounts(3)?;
    let (sent, allowed) = sends(stand, &accounts[0], accounts[1].user).await?;
    let refused = sockets(stand, &accounts[2]).await?;
    let more = format!(
        "{sent} sends were accepted in {SENDING:?} at two gateways, where one alone accepts {allowed:.0}; of {} sockets {SOCKETS} were let in, {refused}",
        SOCKETS + 2
    );
    Ok(Outcome { seen: Vec::new(), more })
}

async fn sends(stand: &Stand, account: &Account, to: u64) -> Result<(usize, f64)> {
    let overdrawn = || GATEWAYS.iter().map(|name| stand.metric(name, "switchboard_rates_overdrawn_total", "sends")).sum::<f64>();
    let mut clients = Vec::new();
    for number in 0..SENDERS * GATEWAYS.len() {
        clients.push(attached(stand, GATEWAYS[number % GATEWAYS.len()], account, &format!("sender-{number}")).await?);
    }
    let (before, ends, conversation) = (overdrawn(), Instant::now() + SENDING, direct_name(account.user, to));
    let sending = clients.iter_mut().map(async |client| {
        let mut sent = 0;
        while Instant::now() < ends {
            accepted(client, &conversation, "a word").await?;
            sent += usize::from(Instant::now() < ends);
        }
        Ok::<usize, anyhow::Error>(sent)
    });
    let sent: usize = try_join_all(sending).await?.into_iter().sum();
    // each gateway has let through its own burst before anybody was charged
    let allowed = SENDS_PER_S * SENDING.as_secs_f64() + BURST;
    ensure!(overdrawn() > before, "{sent} sends were accepted, and nobody was found to have sent too many: it did not bite");
    ensure!((sent as f64) < allowed * MOST + BURST, "{sent} sends were accepted at two gateways, where {allowed} are allowed");
    ensure!(sent as f64 > allowed * 0.6, "only {sent} sends were accepted, where {allowed} are allowed");
    Ok((sent, allowed))
}

async fn sockets(stand: &Stand, account: &Account) -> Result<String> {
    let mut clients = Vec::new();
    for number in 0..SOCKETS {
        clients.push(attached(stand, GATEWAYS[number % GATEWAYS.len()], account, &format!("device-{number}")).await?);
    }
    for gateway in GATEWAYS {
        ensure!(!let_in(stand, gateway, account, "one-too-many").await?, "{gateway} let one more in");
    }
    // a device that was here comes back, at the other gateway: it is none more
    clients.push(attached(stand, GATEWAYS[1], account, "device-0").await?);
    clients.swap_remove(2).close().await;
    let began = Instant::now();
    while !let_in(stand, GATEWAYS[0], account, "in-its-place").await? {
        ensure!(began.elapsed() < PATIENCE, "nobody is let in, in place of one who went");
    }
    Ok(format!("and one more {:.1?} after one had gone", began.elapsed()))
}

/// Whether a device is attached; false: its user has too many.
async fn let_in(stand: &Stand, gateway: &str, account: &Account, device: &str) -> Result<bool> {
    let target = stand.targets(&[gateway]).await?.remove(0);
    let mut client = Client::connect(&target.with_token(&account.token)).await?;
    client.hello(Hello { device, cursor: Some(0), epoch: None }).await?;
    loop {
        match timeout(PATIENCE, client.next()).await.context("it attaches or is refused")? {
            Ok(ServerFrame::Live { .. }) => return Ok(true),
            Ok(_) => {}
            Err(why) if why.close_code() == Some(4429) => return Ok(false),
            Err(why) => bail!("{device}: {why}"),
        }
    }
}
