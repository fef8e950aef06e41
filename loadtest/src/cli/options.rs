//! The options of a run, and the plan they make of a scenario.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use loadtest::fleet::Plan;
use loadtest::frame::Encoding;
use loadtest::prepare::{self, TokenSource};
use loadtest::process::Process;
use loadtest::scenario::expect::Expectation;
use loadtest::scenario::{Body, Reads, Scenario, Span, check, duration};
use loadtest::tls::Authority;

/// Where, who, how many, and what is made of it.
#[derive(Debug, Clone, Args)]
#[group(skip)] // options are flattened into each other
pub(crate) struct Options {
    /// Where the server is; several gateways of one cluster, separated by commas, share the connections.
    #[arg(long, default_value = "ws://127.0.0.1:8080/ws", value_delimiter = ',')]
    pub(crate) url: Vec<String>,
    /// The authority that signed the certificate of a server at `wss://`, in PEM [default: Mozilla's authorities].
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// A tokens file: one line a user, `<user> <token>`.
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,
    /// The server's binary, which makes tokens with --data or --config [default: `switchboard` beside this program].
    #[arg(long, value_name = "BIN", conflicts_with = "tokens")]
    switchboard: Option<PathBuf>,
    /// The server's data folder, for the secret tokens are signed with.
    #[arg(long, value_name = "DIR", conflicts_with = "tokens")]
    data: Option<PathBuf>,
    /// The server's configuration file, for the same.
    #[arg(long, value_name = "FILE", conflicts_with = "tokens")]
    config: Option<PathBuf>,
    /// The first user; the others follow. Not with --tokens.
    #[arg(long, default_value_t = 1)]
    first_user: u64,
    /// Name of a server that is not on this machine and yours.
    #[arg(long, value_name = "HOST")]
    i_own_this_server: Vec<String>,
    /// Connections in all.
    #[arg(long)]
    sockets: Option<usize>,
    /// Connections of each user.
    #[arg(long)]
    devices: Option<u32>,
    /// Sends a second, of all connections together.
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// How frames are written.
    #[arg(long, value_enum)]
    encoding: Option<Encoding>,
    /// How long is measured.
    #[arg(long, value_parser = duration)]
    duration: Option<Duration>,
    /// How long is sent before that.
    #[arg(long, value_parser = duration)]
    warmup: Option<Duration>,
    /// After the last send, messages may take this long without any progress.
    #[arg(long, value_parser = duration)]
    grace: Option<Duration>,
    /// The bytes of every body, instead of a distribution.
    #[arg(long)]
    pub(crate) body: Option<usize>,
    /// Devices acknowledge and read what they were shown, so long after the first of it.
    #[arg(long, value_parser = duration, value_name = "TIME")]
    read: Option<Duration>,
    /// How many people each user writes to; 1: users come in pairs.
    #[arg(long)]
    pub(crate) contacts: Option<usize>,
    /// The scenario in small: a few connections for a few seconds, to see whether it works at all.
    #[arg(long)]
    smoke: bool,
    /// How many handshakes are under way at once.
    #[arg(long)]
    handshakes: Option<usize>,
    /// Connections a second, in open loop, instead.
    #[arg(long)]
    connect_rate: Option<f64>,
    /// A process of the server on this machine, to read its memory and processor time; may be given several times [default: who listens at the first --url].
    #[arg(long, value_name = "PID")]
    server_pid: Vec<u32>,
    /// What does to the server what the scenario `restart` needs, such as 'systemctl restart switchboard'; run by sh.
    #[arg(long, value_name = "COMMAND")]
    fault_command: Option<String>,
    /// What must hold, such as 'delivered.p99 < 100ms'; may be given several times, and comes to what the scenario says.
    #[arg(long, value_name = "CONDITION")]
    pub(crate) expect: Vec<Expectation>,
    /// Worker processes [default: as many as the limit of open files needs].
    #[arg(long)]
    workers: Option<usize>,
    /// Agents on other machines instead, `host:port,...`; one named twice gives two processes.
    #[arg(long, value_delimiter = ',', conflicts_with = "workers")]
    agents: Vec<String>,
    /// File with the token of the agents [default: the environment variable LOADTEST_TOKEN].
    #[arg(long, value_name = "FILE")]
    agent_token_file: Option<PathBuf>,
    /// Write the report for machines.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write the report with charts.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// No progress.
    #[arg(long)]
    pub(crate) quiet: bool,
}

impl Options {
    /// Puts the flags over the scenario.
    ///
    /// # Errors
    /// When what comes out does not fit together.
    pub(crate) fn over(&self, mut scenario: Scenario) -> Result<Scenario> {
        if self.smoke {
            scenario = scenario.smoke();
        }
        let set = |own: &mut Span, given: Option<Duration>| *own = given.map_or(*own, Span);
        set(&mut scenario.duration, self.duration);
        set(&mut scenario.warmup, self.warmup);
        set(&mut scenario.grace, self.grace);
        scenario.sockets = self.sockets.unwrap_or(scenario.sockets);
        scenario.devices = self.devices.unwrap_or(scenario.devices);
        scenario.encoding = self.encoding.unwrap_or(scenario.encoding);
        scenario.connect.at_once = self.handshakes.unwrap_or(scenario.connect.at_once);
        scenario.connect.rate = self.connect_rate.or(scenario.connect.rate);
        scenario.contacts.count = self.contacts.unwrap_or(scenario.contacts.count);
        scenario.reads = self.read.map(|every| Reads { every: Span(every) }).or(scenario.reads);
        if let Some(bytes) = self.body {
            scenario.body = Body { median: bytes, spread: 0.0, least: bytes.min(16), most: bytes };
        }
        if let Some(rate) = self.rate {
            let load = scenario.load.as_mut().context("--rate: this scenario sends nothing")?;
            (load.rate, load.think) = (Some(rate), None);
        }
        scenario.expect.extend(self.expect.iter().cloned());
        check(&scenario).map_err(|(_, what)| anyhow!("{what}"))?;
        Ok(scenario)
    }

    /// Makes sure of the server, the tokens and the limits.
    ///
    /// # Errors
    /// When something is missing, with what to do about it.
    pub(crate) async fn plan(&self, scenario: Scenario) -> Result<Plan> {
        let authority = self.ca.as_deref().map(Authority::read).transpose()?.unwrap_or_default();
        let loopback = prepare::guard(&self.url, &self.i_own_this_server).await?;
        let first_url = self.url.first().context("no --url")?;
        anyhow::ensure!(
            scenario.fault.is_none() || self.fault_command.is_some(),
            "the scenario {} does something to the server: --fault-command 'COMMAND' says what, such as its restart",
            scenario.name
        );
        let workers = if self.agents.is_empty() { prepare::workers_for(scenario.sockets, self.workers)? } else { 0 };
        let accounts = prepare::accounts(&self.token_source(&authority), scenario.users(), first_url).await?;
        let first = accounts.first().context("no users")?;
        for url in &self.url {
            let limits = prepare::probe(url, &authority, first, scenario.encoding).await?;
            prepare::check_rate(&scenario, limits)?;
        }
        let agent_token = match &self.agent_token_file {
            Some(file) => std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?.trim().to_owned(),
            None => std::env::var("LOADTEST_TOKEN").unwrap_or_default(),
        };
        Ok(Plan {
            spread_sources: loopback && (workers > 0 || loadtest::crew::sources_for(scenario.sockets) > 1),
            urls: self.url.clone(),
            authority,
            accounts,
            workers,
            agents: self.agents.clone(),
            agent_token,
            servers: self.server_pid.iter().copied().map(Process::new).collect(),
            find_servers: loopback,
            fault_command: self.fault_command.clone(),
            scenario,
        })
    }

    fn token_source(&self, authority: &Authority) -> TokenSource {
        TokenSource {
            authority: authority.clone(),
            file: self.tokens.clone(),
            switchboard: self.switchboard.clone(),
            data: self.data.clone(),
            config: self.config.clone(),
            first_user: self.first_user,
        }
    }
}
