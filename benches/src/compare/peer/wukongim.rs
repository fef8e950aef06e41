//! WuKongIM 3 as a cluster of one node: its binary protocol over its WebSocket listener; no manager, no webhooks, no plug-ins, no metrics.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, ensure};

use super::process::{self, Server, answers};
use super::{Durability, Peer, Turn};
use crate::compare::dialect::Dialect;
use crate::compare::dialect::wukongim;

pub(crate) struct Wukongim {
    binary: PathBuf,
    /// For the talk with other nodes, of which there are none.
    cluster: SocketAddr,
    http: SocketAddr,
}

impl Wukongim {
    /// With ports that are free now.
    pub(crate) fn new(binary: PathBuf) -> std::io::Result<Self> {
        let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        // both are held until both are known
        let (cluster, http) = (bind()?, bind()?);
        Ok(Self { binary, cluster: cluster.local_addr()?, http: http.local_addr()? })
    }
}

/// Channels that are made at the same time.
const MAKING: usize = 64;

/// The node's settings as its example file has them, what a single node has no use for turned off. Paths are in the server's own folder.
/// Heartbeats would keep a client's route fresh; a run is short and sends none, so routes last longer.
fn config(turn: &Turn<'_>, cluster: SocketAddr, http: SocketAddr) -> String {
    format!(
        r#"[node]
id = 1
data_dir = "data"
[cluster]
listen_addr = "{cluster}"
id = "bench"
nodes = [{{ id = 1, addr = "{cluster}" }}]
join_token = "bench"
initial_slot_count = 10
hash_slot_count = 256
slot_replica_n = 1
commit_coordinator_flush_window = "500us"
[api]
listen_addr = "{http}"
[gateway]
listeners = [{{ name = "ws", network = "websocket", address = "{}", transport = "gnet", protocol = "wsmux" }}]
[presence]
route_ttl = "24h"
[observability]
metrics_enable = false
[prometheus]
enable = false
[top]
api_enable = false
[diagnostics]
enable = false
[plugin]
enable = false
[log]
level = "warn"
dir = "logs"
"#,
        turn.address
    )
}

impl Peer for Wukongim {
    fn name(&self) -> String {
        "WuKongIM".into()
    }

    fn durability(&self) -> Durability {
        Durability::Fsync
    }

    fn remarks(&self) -> &'static str {
        "one node; acknowledged after fsync; no token, as it checks none; sent plain, delivered encrypted; deliveries acknowledged"
    }

    fn start(&self, turn: &Turn<'_>) -> anyhow::Result<(Server, Arc<dyn Dialect>)> {
        let file = turn.dir.join("wukongim.toml");
        std::fs::write(&file, config(turn, self.cluster, self.http))?;
        let mut command = process::command(&self.binary, "WK_");
        command.arg("-config").arg(file);
        let server = Server::start(&command, turn.dir)?;
        server.wait(|| answers(self.http, "/readyz"))?;
        Ok((server, Arc::new(wukongim::Wukongim)))
    }

    /// The first message of each pair makes their channel, for which the node waits up to half a second to see whether more are to be made;
    /// a thousand a second would pile up and be refused.
    fn acquaint(&self, writers: usize) -> anyhow::Result<()> {
        let next = AtomicUsize::new(0);
        let make = || -> anyhow::Result<()> {
            loop {
                let client = next.fetch_add(2, Ordering::Relaxed);
                if client >= writers {
                    return Ok(());
                }
                let (from, to) = (wukongim::user(client), wukongim::user(client ^ 1));
                let message = format!(r#"{{"from_uid":"{from}","channel_id":"{to}","channel_type":1,"payload":"aGk="}}"#);
                let made = process::accepts(self.http, "/message/send", &message).context("WuKongIM's HTTP")?;
                ensure!(made, "WuKongIM made no channel for {from} and {to}");
            }
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..MAKING).map(|_| scope.spawn(make)).collect();
            threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })
    }
}
