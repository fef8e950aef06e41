//! Several crews as one: jobs are handed out, barriers kept, and what they count is added up.
//!
//! A crew is a task of this process, another process of this machine, or one on another machine behind an agent. All
//! speak the same: a job, then orders one way and news the other, a JSON object a line.

pub mod agent;
mod conductor;
mod split;
pub mod wire;

use std::net::Ipv4Addr;
use std::process::Stdio;

use anyhow::{Context, Result};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use crate::crew::{self, Job, News, Order};
use crate::process::Process;
use crate::report::Report;
use crate::scenario::Scenario;
use crate::tls::Authority;
use crate::tokens::Account;

pub use conductor::Progress;
pub use split::split;

/// News that were not looked at yet, of all crews.
const NEWS_MAX: usize = 256;
/// A crew gets one order at each barrier.
const ORDERS_MAX: usize = 4;

/// A whole run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What is done.
    pub scenario: Scenario,
    /// Where the server is: several gateways share the connections.
    pub urls: Vec<String>,
    /// Who may have signed its certificate.
    pub authority: Authority,
    /// Who the clients are, one for each user.
    pub accounts: Vec<Account>,
    /// How many processes are started for it; 0: all is done in this one.
    pub workers: usize,
    /// Agents on other machines, `host:port` each, and the token they know. With them nothing is done here.
    pub agents: Vec<String>,
    /// The token of the agents.
    pub agent_token: String,
    /// The server's processes on this machine, to read their memory and processor time.
    pub servers: Vec<Process>,
    /// Find the server's process anew when it is gone: the one that listens at the first address.
    pub find_servers: bool,
    /// Run by `sh -c` when the scenario's fault is due.
    pub fault_command: Option<String>,
    /// The local addresses of crews on this machine, spread over 127.0.0.0/8; false: the kernel chooses.
    pub spread_sources: bool,
}

/// Runs it. Calls `progress` about every second.
///
/// # Errors
/// When crews cannot be had, or one of them cannot go on; not when the verdict is bad.
pub async fn run(plan: &Plan, progress: impl FnMut(&Progress)) -> Result<Report> {
    let jobs = split(plan)?;
    let (news, heard) = mpsc::channel(NEWS_MAX);
    let mut crews = Vec::new();
    for (index, job) in jobs.into_iter().enumerate() {
        crews.push(match plan.agents.get(index) {
            Some(address) => agent::engage(address, &plan.agent_token, job, (index, news.clone())).await?,
            None if plan.workers > 0 => start_process(job, (index, news.clone())).await?,
            None => start_here(job, (index, news.clone())),
        });
    }
    drop(news);
    Box::pin(conductor::conduct(plan, crews, heard, progress)).await
}

/// A crew as the conductor has it. Dropping it ends the crew.
#[derive(Debug)]
pub(crate) struct Hand {
    pub(crate) orders: mpsc::Sender<Order>,
    /// Its process, if it is one of this machine.
    _process: Option<Child>,
}

/// Where a crew's news go: its number, and the conductor's ear.
type Ear = (usize, mpsc::Sender<(usize, News)>);

fn start_here(job: Job, (index, ear): Ear) -> Hand {
    let (orders, obeyed) = mpsc::channel(ORDERS_MAX);
    let (news, mut heard) = mpsc::channel(NEWS_MAX);
    tokio::spawn(crew::run(job, obeyed, news));
    tokio::spawn(async move {
        while let Some(news) = heard.recv().await {
            if ear.send((index, news)).await.is_err() {
                return;
            }
        }
    });
    Hand { orders, _process: None }
}

async fn start_process(job: Job, ear: Ear) -> Result<Hand> {
    let mut process = worker_command()?.spawn().context("starting a worker process")?;
    let (input, output) = (process.stdin.take().context("its stdin")?, process.stdout.take().context("its stdout")?);
    let orders = wire::command(output, input, job, ear).await?;
    Ok(Hand { orders, _process: Some(process) })
}

/// This program as a crew that is commanded over its standard input and output.
pub(crate) fn worker_command() -> Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("where is this program?")?);
    command.arg("worker").stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    Ok(command)
}

/// The local addresses of worker `worker`: 127.1.w.k, one for every few thousand sockets.
fn sources(worker: usize, sockets: usize) -> Vec<Ipv4Addr> {
    let octet = |number: usize| u8::try_from(number % 250).unwrap_or_default();
    (0..crew::sources_for(sockets)).map(|k| Ipv4Addr::new(127, 1 + octet(worker / 250), octet(worker), 1 + octet(k))).collect()
}
