//! What clients do: read nothing, come all at once, be in two places.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use loadtest::client::Client;
use loadtest::frame::{Hello, ServerFrame, direct_name};
use loadtest::process::Process;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::pair::attached;
use super::{BEFORE, GATEWAYS, Outcome, usual};
use crate::load::{Load, under_load};
use crate::stand::{PATIENCE, Stand};

/// Receive buffer of a device that never reads, bytes: the kernel is not to take much for it.
const DEAF_BUFFER: u32 = 4096;
const DEAF: usize = 20;
/// Bytes that a gateway may grow by for all of them: their queues are bounded.
const DEAF_MEMORY: u64 = 16 * 1024 * 1024;

/// Devices that are attached and never read, of a user that others write to as fast as they may: the others do not notice.
pub(crate) async fn never_read(stand: &Stand) -> Result<Outcome> {
    let accounts = stand.accounts(2)?;
    let target = stand.targets(&["gateway-1"]).await?.remove(0);
    let mut deaf = Vec::new();
    for number in 0..DEAF {
        let target = target.with_token(&accounts[0].token).with_receive_buffer(DEAF_BUFFER);
        let mut client = Client::connect(&target).await?;
        client.hello(Hello { device: &format!("deaf-{number}"), cursor: Some(0), epoch: None }).await?;
        deaf.push(client);
    }
    let process = Process::new(stand.cluster(&["pid", "gateway-1"])?.parse()?);
    let before = process.memory()?;
    let (ends, mut written) = (Instant::now() + Duration::from_secs(15), 0_u32);
    let mut writer = attached(stand, "gateway-2", &accounts[1], "phone").await?;
    let seen = under_load(stand, usual("F9"), async {
        stand.fault(format!("{DEAF} devices read nothing"));
        while Instant::now() < ends {
            accepted(&mut writer, &direct_name(accounts[1].user, accounts[0].user), &"word ".repeat(800)).await?;
            written += 1;
        }
        Ok(())
    })
    .await?;
    let grown = process.memory()?.saturating_sub(before);
    ensure!(grown < DEAF_MEMORY, "the gateway has grown by {grown} bytes");
    ensure!(seen.closed == 0, "others were cut off");
    ensure!(seen.slowest < Duration::from_secs(2), "others waited for {:?}", seen.slowest);
    let mut waited = 0;
    while let Ok(frame) = timeout(Duration::from_secs(1), deaf[0].next()).await {
        // it may have been closed for not reading
        let Ok(frame) = frame else { break };
        waited += u32::from(matches!(frame, ServerFrame::Event(_)));
    }
    ensure!(waited < written, "all of {written} messages were written to one that did not read");
    Ok((seen, format!("{written} messages of 4 KB to them, {waited} written to one; the gateway grew by {} KiB", grown / 1024))
        .into())
}

/// One message, as soon as the server takes it.
pub(super) async fn accepted(writer: &mut Client, conversation: &str, text: &str) -> Result<()> {
    let id = Uuid::now_v7();
    loop {
        writer.feed_text(id, conversation, text).await?;
        writer.flush().await?;
        let refused = loop {
            match timeout(PATIENCE, writer.next()).await.context("an answer")?? {
                ServerFrame::Accepted { .. } => return Ok(()),
                ServerFrame::Event(event) => writer.received(event.seq).await?,
                ServerFrame::Refused(refused) => break refused,
                _ => {}
            }
        };
        ensure!(refused.code == "rate", "refused: {}", refused.code);
        sleep(Duration::from_millis(refused.retry_after_ms)).await;
    }
}

/// Both gateways are killed and started: everybody is cut off at once, and comes back.
pub(crate) async fn storm(stand: &Stand) -> Result<Outcome> {
    let load = Load { row: "F16", gateways: &GATEWAYS, users: 60, rate: 100 };
    let seen = under_load(stand, load, async {
        for _ in 0..3 {
            sleep(BEFORE).await;
            for gateway in GATEWAYS {
                stand.does("kill", gateway)?;
            }
            for gateway in GATEWAYS {
                stand.does("start", gateway)?;
            }
        }
        sleep(2 * BEFORE).await;
        Ok(())
    })
    .await?;
    ensure!(seen.closed >= 3 * 120, "only {} connections broke", seen.closed);
    Ok(seen.into())
}

/// One device at two gateways: the newer closes the older at once, and what is sent then comes to the newer.
pub(crate) async fn one_device_twice(stand: &Stand) -> Result<Outcome> {
    let accounts = stand.accounts(2)?;
    let account = &accounts[0];
    let mut writer = attached(stand, GATEWAYS[0], &accounts[1], "phone").await?;
    let mut older = attached(stand, GATEWAYS[0], account, "phone").await?;
    let mut slowest = Duration::ZERO;
    for round in 1..=6 {
        let mut newer = attached(stand, GATEWAYS[round % 2], account, "phone").await?;
        let began = Instant::now();
        let closed = timeout(Duration::from_secs(5), async {
            loop {
                if let Err(why) = older.next().await {
                    return why.close_code();
                }
            }
        });
        let code = closed.await.context("the older one is not closed")?;
        ensure!(code == Some(4409), "the older one is closed with {code:?}");
        slowest = slowest.max(began.elapsed());
        accepted(&mut writer, &direct_name(accounts[1].user, account.user), "a word").await?;
        loop {
            if let ServerFrame::Event(event) = timeout(PATIENCE, newer.next()).await.context("it comes to the newer one")?? {
                newer.received(event.seq).await?;
                break;
            }
        }
        older = newer;
    }
    Ok(Outcome {
        seen: Vec::new(),
        more: format!("6 times, the older one was closed within {slowest:.2?}, and the newer one got what was sent"),
    })
}
