//! Crews on other machines: an agent waits there, and gives each conductor that knows the token a process of its own.
//!
//! The stream is not encrypted and carries users' tokens: keep it in a network of your own, or in a tunnel.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use tokio::io::BufReader;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::{Ear, Hand, wire, worker_command};
use crate::crew::Job;

/// So long may it take to show the token.
const GREETING: Duration = Duration::from_secs(5);
/// So many jobs at once.
const JOBS_MAX: usize = 64;
/// A token is at least so long.
const TOKEN_MIN: usize = 16;

/// The first line of a conductor.
#[derive(Debug, Serialize, Deserialize)]
struct Greeting {
    token: String,
}

/// The first line of an agent.
#[derive(Debug, Serialize, Deserialize)]
struct Welcome {
    version: String,
}

/// Waits for conductors and starts a worker process for each, for ever.
///
/// # Errors
/// When the token is too short.
pub async fn serve(listener: TcpListener, token: String) -> Result<()> {
    ensure!(token.len() >= TOKEN_MIN, "the token of agents must have at least {TOKEN_MIN} characters");
    let jobs = std::sync::Arc::new(Semaphore::new(JOBS_MAX));
    let token: std::sync::Arc<str> = token.into();
    loop {
        let permit = std::sync::Arc::clone(&jobs).acquire_owned().await.context("the agent is closed")?;
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(why) => {
                eprintln!("accepting: {why}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let token = std::sync::Arc::clone(&token);
        tokio::spawn(async move {
            eprintln!(
                "{peer}: {}",
                match host(stream, &token).await {
                    Ok(()) => "job done".to_owned(),
                    Err(why) => format!("{why:#}"),
                }
            );
            drop(permit);
        });
    }
}

async fn host(mut stream: TcpStream, token: &str) -> Result<()> {
    let (input, mut output) = stream.split();
    let mut input = BufReader::with_capacity(1024, input);
    let greeting = tokio::time::timeout(GREETING, greeting(&mut input)).await.context("no greeting in time")??;
    ensure!(is_equal(greeting.token.as_bytes(), token.as_bytes()), "a wrong token");
    wire::say(&mut output, &Welcome { version: env!("CARGO_PKG_VERSION").to_owned() }).await?;
    let mut process = worker_command()?.spawn().context("starting a worker process")?;
    let (mut orders, mut news) = (process.stdin.take().context("its stdin")?, process.stdout.take().context("its stdout")?);
    tokio::select! {
        copied = tokio::io::copy(&mut news, &mut output) => drop(copied.context("passing news on")?),
        copied = tokio::io::copy_buf(&mut input, &mut orders) => {
            copied.context("passing orders on")?;
            bail!("the conductor left");
        }
    }
    Ok(())
}

/// The greeting is short: nobody may make the agent read more before the token was shown.
async fn greeting(input: &mut (impl tokio::io::AsyncBufRead + Unpin)) -> Result<Greeting> {
    use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _};
    let mut line = Vec::new();
    input.take(1024).read_until(b'\n', &mut line).await?;
    serde_json::from_slice(&line).context("no greeting of a conductor")
}

/// In a time that does not tell where they differ.
fn is_equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

/// Hands a job to the agent at `address`.
///
/// # Errors
/// When it cannot be reached, does not take the token, or is of another version.
pub(super) async fn engage(address: &str, token: &str, job: Job, ear: Ear) -> Result<Hand> {
    let stream = TcpStream::connect(address).await.with_context(|| format!("connecting to the agent {address}"))?;
    stream.set_nodelay(true)?;
    let (input, mut output) = stream.into_split();
    wire::say(&mut output, &Greeting { token: token.to_owned() }).await?;
    let mut input = BufReader::new(input);
    let welcome = tokio::time::timeout(GREETING, wire::hear::<Welcome>(&mut input)).await.context("the agent does not answer")?;
    let welcome = welcome?.with_context(|| format!("the agent {address} does not take the token"))?;
    let own = env!("CARGO_PKG_VERSION");
    ensure!(welcome.version == own, "the agent {address} is version {}, this program is {own}", welcome.version);
    Ok(Hand { orders: wire::command(input, output, job, ear).await?, _process: None })
}
