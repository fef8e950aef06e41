//! Switchboard and its peers on one machine, in turns, with one client for all.
//!
//! Each round gives every peer its turn: start, connect the idle sockets, send at a fixed rate, stop. So a busy minute hits all alike, and
//! only ratios within a run mean something. Medians over the rounds are shown, with the lowest and the highest.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::{Args, ValueEnum};

use crate::relay::Kind;
use generator::{Crowd, Plan};
use peer::{Peer, Turn};
use report::{Figures, Row};

mod dialect;
mod generator;
mod peer;
mod report;
mod websocket;

/// Background work after a crowd came ends in this time: memory is read then.
const SETTLE: Duration = Duration::from_secs(2);

/// Who takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    Switchboard,
    Fastwebsockets,
    Tungstenite,
    Nats,
    Ejabberd,
    Centrifugo,
    Wukongim,
}

/// What is compared, and how long.
#[derive(Args, Clone)]
pub(crate) struct Compare {
    /// Who takes part; the order is that of the turns.
    #[arg(long, value_delimiter = ',', value_enum, default_values = ["switchboard", "fastwebsockets", "tungstenite", "nats", "ejabberd", "centrifugo", "wukongim"])]
    peers: Vec<Name>,
    /// The switchboard binary.
    #[arg(long, default_value = "target/release/switchboard")]
    switchboard: PathBuf,
    /// The nats-server binary.
    #[arg(long, default_value = "nats-server")]
    nats: PathBuf,
    /// The centrifugo binary; without it the row is quoted.
    #[arg(long, value_name = "BINARY")]
    centrifugo: Option<PathBuf>,
    /// The wukongim binary; without it the row is quoted.
    #[arg(long, value_name = "BINARY")]
    wukongim: Option<PathBuf>,
    /// Sockets that send and receive; even.
    #[arg(long, default_value_t = 1000)]
    sockets: usize,
    /// Sockets that are connected and idle, for memory and set-up; 0: as many as send.
    #[arg(long, default_value_t = 10_000)]
    idle: usize,
    /// Messages a second.
    #[arg(long, default_value_t = 1000.0)]
    rate: f64,
    /// Bytes of a body.
    #[arg(long, default_value_t = 200)]
    bytes: usize,
    /// How long messages are counted.
    #[arg(long, value_parser = crate::seconds, default_value = "20s")]
    duration: Duration,
    /// How long they are sent before that.
    #[arg(long, value_parser = crate::seconds, default_value = "5s")]
    warmup: Duration,
    /// Turns of each peer.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// The first of the ports, one for each peer.
    #[arg(long, default_value_t = 18_200)]
    port: u16,
    /// Where the temporary folders go: the disk a durable peer writes to.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Threads that receive.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Prints JSON instead of the table.
    #[arg(long)]
    json: bool,
}

impl Compare {
    fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.sockets >= 2 && self.sockets.is_multiple_of(2),
            "--sockets must be even: clients write to each other in pairs"
        );
        ensure!(self.bytes >= dialect::STAMP, "--bytes must be at least {}", dialect::STAMP);
        ensure!(self.rate > 0.0 && self.rate <= 1e6, "--rate must be above 0, at most 1000000");
        ensure!(self.rate * self.duration.as_secs_f64() >= 1.0, "nothing would be sent");
        ensure!(self.rounds > 0 && self.threads > 0, "--rounds and --threads must be at least 1");
        let files = rlimit::increase_nofile_limit(u64::MAX)?;
        let wanted = self.clients() as u64 + 100;
        ensure!(files >= wanted, "{wanted} files must be open at once, the limit is {files}: ulimit -n");
        Ok(())
    }

    fn clients(&self) -> usize {
        self.sockets.max(self.idle)
    }

    fn plan(&self) -> Plan {
        Plan { rate: self.rate, warmup: self.warmup, duration: self.duration, bytes: self.bytes }
    }

    /// Those that run, and those that are only quoted.
    fn rows(&self) -> anyhow::Result<Vec<Row>> {
        let binary = std::env::current_exe()?;
        let relay = |kind| Row::of(peer::relay::Relay { kind, binary: binary.clone() });
        let found = |binary: &PathBuf| -> anyhow::Result<PathBuf> {
            // without a folder it is looked for where the shell would
            if binary.components().count() == 1 {
                Ok(binary.clone())
            } else {
                binary.canonicalize().with_context(|| format!("{} is missing", binary.display()))
            }
        };
        let row = |name| {
            Ok(match name {
                Name::Switchboard => Row::of(peer::switchboard::Switchboard { binary: found(&self.switchboard)? }),
                Name::Fastwebsockets => relay(Kind::Fastwebsockets),
                Name::Tungstenite => relay(Kind::Tungstenite),
                Name::Nats => Row::of(peer::nats::Nats { binary: found(&self.nats)? }),
                Name::Ejabberd => Row::of(peer::ejabberd::Ejabberd),
                Name::Centrifugo => match &self.centrifugo {
                    Some(binary) => Row::of(peer::centrifugo::Centrifugo { binary: found(binary)? }),
                    None => Row::quoted(&peer::reference::CENTRIFUGO),
                },
                Name::Wukongim => match &self.wukongim {
                    Some(binary) => Row::of(peer::wukongim::Wukongim::new(found(binary)?)?),
                    None => Row::quoted(&peer::reference::WUKONGIM),
                },
            })
        };
        self.peers.iter().map(|name| row(*name)).collect()
    }
}

/// All rounds, and the table.
pub(crate) fn run(compare: &Compare) -> anyhow::Result<()> {
    compare.check()?;
    let mut rows = compare.rows()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(compare.threads).enable_all().build()?;
    // nothing is done about Ctrl-C: the servers end with this process, however it ends
    runtime.block_on(rounds(compare, &mut rows))?;
    if compare.json {
        println!("{:#}", report::json(compare, &rows));
    } else {
        report::print(compare, &rows);
    }
    Ok(())
}

async fn rounds(compare: &Compare, rows: &mut [Row]) -> anyhow::Result<()> {
    for round in 1..=compare.rounds {
        for (at, row) in rows.iter_mut().enumerate() {
            let Some(peer) = &row.peer else { continue };
            let port = compare.port.checked_add(u16::try_from(at)?).context("--port is too high")?;
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let figures = turn(compare, &**peer, address).await.with_context(|| format!("{} in round {round}", row.name))?;
            eprintln!("round {round}: {}: {figures}, load {}", row.name, crate::meter::load());
            row.figures.push(figures);
        }
    }
    Ok(())
}

/// One peer from its start to its end.
async fn turn(compare: &Compare, peer: &dyn Peer, address: SocketAddr) -> anyhow::Result<Figures> {
    ensure!(!peer::process::listens(address), "{address} is in use");
    let dir = tempfile::Builder::new().prefix("switchboard-compare-").tempdir_in(compare.dir.canonicalize()?)?;
    let clients = compare.clients();
    let (server, dialect) = tokio::task::block_in_place(|| peer.start(&Turn { dir: dir.path(), address, clients }))?;
    let measured = measure(compare, peer, &server, dialect, address).await;
    measured.with_context(|| format!("the end of its log: {}", server.log()))
}

async fn measure(
    compare: &Compare,
    peer: &dyn Peer,
    server: &peer::process::Server,
    dialect: std::sync::Arc<dyn dialect::Dialect>,
    address: SocketAddr,
) -> anyhow::Result<Figures> {
    tokio::time::sleep(SETTLE).await;
    let clients = compare.clients();
    let (empty, began) = (server.cost()?, Instant::now());
    let mut crowd = Crowd::enter(address, clients, dialect).await?;
    let (entered, took) = (server.cost()?, began.elapsed());
    tokio::time::sleep(SETTLE).await;
    crowd.check()?;
    let idle = server.cost()?;
    crowd.shrink(compare.sockets);
    tokio::task::block_in_place(|| peer.acquaint(compare.sockets))?;
    tokio::time::sleep(SETTLE).await;
    let mut before = None;
    let note = || {
        before = Some(server.cost()?);
        Ok(())
    };
    let load = crowd.send(&compare.plan(), note).await?;
    let after = server.cost()?;
    let before = before.context("the warm-up never ended")?;
    ensure!(load.delivered == load.sent, "{} of {} messages arrived", load.delivered, load.sent);
    let clients = clients as f64;
    let latency_ms = |share| load.latency_us.value_at_quantile(share) as f64 / 1e3;
    Ok(Figures {
        memory_b: idle.memory.saturating_sub(empty.memory) as f64 / clients,
        setup_us: (entered.cpu_s - empty.cpu_s) * 1e6 / clients,
        setup_per_s: clients / took.as_secs_f64(),
        p50_ms: latency_ms(0.5),
        p99_ms: latency_ms(0.99),
        p999_ms: latency_ms(0.999),
        cpu_s: (after.cpu_s - before.cpu_s) * 1e6 / load.sent as f64,
        confirmed: load.confirmed as f64 / load.sent as f64,
    })
}
