//! The load scenarios: many idle sockets, a steady open load, and the search for the highest good rate.

pub mod direct;

pub mod idle;

mod lane;

pub mod search;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::client::{Client, ClientError, Target};
use crate::frame::{Hello, ServerFrame, Welcome};
use crate::process::{Process, open_files_limit};
use crate::tokens::{self, Account};

/// Files a process needs beside its sockets.
const OTHER_FILES: u64 = 64;

/// What every scenario must know.
#[derive(Debug, Clone, Args)]
#[group(skip)] // options are flattened into each other
pub struct Common {
    /// Where the server is; several gateways of one cluster, separated by commas, share the sockets of `direct`.
    #[arg(long, default_value = "ws://127.0.0.1:8080/ws", value_delimiter = ',')]
    pub url: Vec<String>,
    /// The tokens file: one line a user, `<user> <token>`.
    #[arg(long)]
    pub tokens: PathBuf,
    /// How many sockets, one for each user of the tokens file.
    #[arg(long, default_value_t = 1000)]
    pub sockets: usize,
    /// The server's process, to read its memory and processor time.
    #[arg(long)]
    pub server_pid: Option<u32>,
    /// How many handshakes are under way at once.
    #[arg(long, default_value_t = 128)]
    pub handshakes: usize,
}

impl Common {
    fn accounts(&self) -> Result<Vec<Account>> {
        let mut accounts = tokens::read(&self.tokens)?;
        let (have, want) = (accounts.len(), self.sockets);
        ensure!(have >= want, "{want} sockets need {want} tokens, {} holds {have}", self.tokens.display());
        accounts.truncate(want);
        let (limit, need) = (open_files_limit()?, want as u64 + OTHER_FILES);
        ensure!(limit >= need, "{want} sockets need {need} open files, the limit is {limit}: raise it with ulimit -n");
        Ok(accounts)
    }

    fn server(&self) -> Option<Process> {
        self.server_pid.map(Process::new)
    }

    async fn target(&self) -> Result<Target> {
        let targets = self.targets().await?;
        ensure!(targets.len() == 1, "this scenario has one --url");
        targets.into_iter().next().context("--url is missing")
    }

    async fn targets(&self) -> Result<Vec<Target>> {
        let mut targets = Vec::new();
        for url in &self.url {
            targets.push(Target::resolve(url).await.with_context(|| format!("resolving {url}"))?);
        }
        Ok(targets)
    }
}

/// A connection that stands and has everything.
#[derive(Debug)]
struct Attached {
    client: Client,
    welcome: Welcome,
    head: u64,
}

/// Connects a device at its cursor, or, without one, where the server says: at the present head when it is new.
async fn attach(target: &Target, device: &str, cursor: Option<u64>) -> Result<Attached, ClientError> {
    let mut client = Client::connect(target).await?;
    let welcome = client.hello(Hello { device, cursor, epoch: None }).await?;
    loop {
        match client.next().await? {
            ServerFrame::Live { head } => return Ok(Attached { client, welcome, head }),
            ServerFrame::Event(event) => client.received(event.seq).await?,
            ServerFrame::Error(error) => return Err(ClientError::Refused(error)),
            other => return Err(ClientError::Contract(format!("{other:?} where live was due"))),
        }
    }
}

/// A device name no earlier run has used, so that every run begins at the head.
fn fresh_device(run: u32) -> String {
    format!("load-{run:08x}")
}

/// Reads `30s`, `500ms` or `2m`.
///
/// # Errors
/// When it is none of these.
pub fn duration(text: &str) -> Result<Duration> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: f64 = digits.parse().with_context(|| format!("{text} is no duration"))?;
    let seconds = match text.get(digits.len()..).unwrap_or_default() {
        "ms" => number / 1e3,
        "s" => number,
        "m" => number * 60.0,
        unit => bail!("{unit:?} is no unit of time: ms, s or m"),
    };
    Duration::try_from_secs_f64(seconds).with_context(|| format!("{text} is no duration"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        assert_eq!(duration("30s").unwrap(), Duration::from_secs(30));
        assert_eq!(duration("250ms").unwrap(), Duration::from_millis(250));
        assert_eq!(duration("1.5m").unwrap(), Duration::from_secs(90));
        assert!(duration("30").is_err() && duration("x").is_err() && duration("-1s").is_err());
    }
}
