//! Many sockets that stand still: how long they take to come, and what each costs the server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use futures_util::{StreamExt, stream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Attached, Common, attach, fresh_device};
use crate::client::{Client, Target};
use crate::pace::Latencies;
use crate::process::Process;
use crate::tokens::Account;

/// An idle socket reads pings only.
const READ_BUFFER: usize = 512;
/// Memory is looked at this often until it stands still.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// So many looks must agree.
const LOOKS: usize = 6;
/// Two looks agree within this.
const AGREE: u64 = 256 * 1024;
/// Memory that never stands still is taken as it is after this time.
const LOOK_AT_MOST: Duration = Duration::from_secs(60);

/// The options of `idle`.
#[derive(Debug, Clone, Args)]
#[group(skip)] // options are flattened into each other
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// How long all sockets are held.
    #[arg(long, default_value = "30s", value_parser = super::duration)]
    hold: Duration,
    /// How long the server may give memory back before it is measured.
    #[arg(long, default_value = "12s", value_parser = super::duration)]
    settle: Duration,
}

/// Somebody who comes: for the first time, or back with a cursor.
#[derive(Debug, Clone)]
struct Comer {
    account: Account,
    cursor: Option<u64>,
}

/// What one crowd was like.
#[derive(Debug, Default)]
struct Arrival {
    took: Duration,
    latencies: Latencies,
    failed: Vec<String>,
    /// Who came, with the cursor to come back with.
    came: Vec<Comer>,
}

/// Sockets that stand.
#[derive(Debug)]
struct Crowd {
    leave: watch::Sender<bool>,
    sockets: JoinSet<Option<String>>,
}

/// Runs the scenario. Returns whether every socket came and stayed.
///
/// # Errors
/// When the server cannot be measured or the options do not fit.
pub async fn run(options: Options) -> Result<bool> {
    let accounts = options.common.accounts()?;
    let target = options.common.target().await?.with_read_buffer(READ_BUFFER);
    let handshakes = options.common.handshakes;
    let device: Arc<str> = fresh_device(rand::random()).into();
    match options.common.server() {
        Some(server) => measured(&options, server, &target, strangers(accounts)).await,
        None => {
            let (crowd, arrival) = Crowd::gather(&target, &device, strangers(accounts), handshakes).await;
            arrival.print("coming for the first time", &crowd);
            tokio::time::sleep(options.hold).await;
            Ok(crowd.dismiss().await && arrival.failed.is_empty())
        }
    }
}

/// People who come for the first time: the server gives their devices a birth, durably.
fn strangers(accounts: Vec<Account>) -> Vec<Comer> {
    accounts.into_iter().map(|account| Comer { account, cursor: None }).collect()
}

/// A round of strangers, then the round that counts: everybody comes back with a cursor, as after a cut.
async fn measured(options: &Options, server: Process, target: &Target, comers: Vec<Comer>) -> Result<bool> {
    let handshakes = options.common.handshakes;
    let device: Arc<str> = fresh_device(rand::random()).into();
    // Own memory is compared with the very start: what the allocator keeps after a round would hide the cost.
    let own_cold = Process::own().memory()?;
    let cold = server.memory().context("is --server-pid right?")?;
    let cpu_before = server.cpu_seconds()?;
    let (crowd, arrival) = Crowd::gather(target, &device, comers, handshakes).await;
    let cpu_first = server.cpu_seconds()? - cpu_before;
    arrival.print("coming for the first time", &crowd);
    println!("server CPU a connection: {:.3} ms", cpu_first * 1e3 / to_f64(crowd.sockets.len().max(1) as u64));
    let first_full = settled(server, options.settle).await?;
    crowd.dismiss().await;
    let empty = settled(server, options.settle).await?;

    let cpu_before = server.cpu_seconds()?;
    let (crowd, arrival) = Crowd::gather(target, &device, arrival.came, handshakes).await;
    let cpu_arrived = server.cpu_seconds()?;
    arrival.print("coming back with a cursor", &crowd);
    let full = settled(server, options.settle).await?;
    let own_full = Process::own().memory()?;
    let (cpu_hold, hold_from) = (server.cpu_seconds()?, Instant::now());
    tokio::time::sleep(options.hold).await;
    let (cpu_held, held) = (server.cpu_seconds()? - cpu_hold, hold_from.elapsed());

    let standing = crowd.sockets.len().max(1) as u64;
    println!(
        "server memory (RssAnon): {} KiB at the start, {} KiB with the first crowd, {} KiB empty after it, {} KiB with {standing} sockets",
        cold / 1024,
        first_full / 1024,
        empty / 1024,
        full / 1024
    );
    println!(
        "server memory a socket: {} B over the empty server, {} B over the untouched one",
        full.saturating_sub(empty) / standing,
        full.saturating_sub(cold) / standing
    );
    println!("server CPU a connection: {:.3} ms", (cpu_arrived - cpu_before) * 1e3 / to_f64(standing));
    println!(
        "server CPU holding: {cpu_held:.2} s in {:.0} s = {:.2} % of a core",
        held.as_secs_f64(),
        cpu_held * 100.0 / held.as_secs_f64()
    );
    println!("client memory a socket: {} B", own_full.saturating_sub(own_cold) / standing);
    Ok(crowd.dismiss().await && arrival.failed.is_empty())
}

/// The memory of the server when it stands still, not before `least`.
async fn settled(server: Process, least: Duration) -> Result<u64> {
    tokio::time::sleep(least).await;
    let start = Instant::now();
    let mut looks: Vec<u64> = Vec::new();
    loop {
        looks.push(server.memory()?);
        let last = &looks[looks.len().saturating_sub(LOOKS)..];
        let spread = last.iter().max().zip(last.iter().min()).map_or(0, |(most, least)| most - least);
        if last.len() == LOOKS && spread <= AGREE {
            return server.memory();
        }
        if start.elapsed() > LOOK_AT_MOST {
            println!("note: the server's memory did not stand still within {LOOK_AT_MOST:?}, spread {} KiB", spread / 1024);
            return server.memory();
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

impl Arrival {
    fn print(&self, how: &str, crowd: &Crowd) {
        let (standing, seconds) = (crowd.sockets.len(), self.took.as_secs_f64());
        println!("{how}: {standing} sockets attached in {seconds:.2} s = {:.0}/s", to_f64(standing as u64) / seconds);
        println!("connect to live: {}", self.latencies.summary());
        if let Some(why) = self.failed.first() {
            println!("{} sockets failed, the first: {why}", self.failed.len());
        }
    }
}

impl Crowd {
    /// Connects everybody, a bounded number at a time. Each socket is held from the moment it stands.
    async fn gather(target: &Target, device: &Arc<str>, comers: Vec<Comer>, handshakes: usize) -> (Self, Arrival) {
        let mut crowd = Self { leave: watch::Sender::new(false), sockets: JoinSet::new() };
        let mut arrival = Arrival::default();
        let start = Instant::now();
        let target = target.clone();
        let coming = stream::iter(comers).map(move |comer| {
            let (target, device) = (target.with_token(&comer.account.token), Arc::clone(device));
            async move {
                let start = Instant::now();
                (attach(&target, &device, comer.cursor).await, start.elapsed(), comer.account)
            }
        });
        let mut coming = std::pin::pin!(coming.buffer_unordered(handshakes.max(1)));
        while let Some((attached, took, account)) = coming.next().await {
            match attached {
                Ok(Attached { client, head, .. }) => {
                    arrival.latencies.add(took);
                    arrival.came.push(Comer { account, cursor: Some(head) });
                    crowd.sockets.spawn(hold(client, crowd.leave.subscribe()));
                }
                Err(error) => arrival.failed.push(error.to_string()),
            }
        }
        arrival.took = start.elapsed();
        (crowd, arrival)
    }

    /// Sends everybody home. Returns whether all had stayed until now.
    async fn dismiss(mut self) -> bool {
        self.leave.send_replace(true);
        let mut lost = Vec::new();
        while let Some(ended) = self.sockets.join_next().await {
            lost.extend(ended.unwrap_or_else(|panic| Some(panic.to_string())));
        }
        if let Some(why) = lost.first() {
            println!("{} sockets were lost, the first: {why}", lost.len());
        }
        lost.is_empty()
    }
}

/// Holds one socket; the reason if it did not last.
async fn hold(mut client: Client, mut leave: watch::Receiver<bool>) -> Option<String> {
    loop {
        tokio::select! {
            frame = client.next() => if let Err(error) = frame { return Some(error.to_string()) },
            () = async { drop(leave.wait_for(|leave| *leave).await) } => {
                client.close().await;
                return None;
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a count of sockets")]
fn to_f64(count: u64) -> f64 {
    count as f64
}
