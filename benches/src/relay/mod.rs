//! The ceiling: a server that only hands each frame to its sender's partner. No account, no acknowledgement, no storage.
//!
//! Client `n` enters at the path `/n`; what it sends goes to client `n ^ 1`, and is dropped when nobody is there.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use parking_lot::RwLock;
use tokio::net::TcpListener;

mod fast;
mod tungstenite;

/// What each client is told first, so that it knows its partner can reach it.
pub(crate) const WELCOME: &[u8] = b".";

/// Which library frames the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// fastwebsockets on hyper.
    Fastwebsockets,
    /// tokio-tungstenite with buffers of 4 KiB.
    Tungstenite,
}

/// How the relay is run.
#[derive(Args)]
pub(crate) struct Relay {
    /// The library.
    #[arg(long)]
    kind: Kind,
    /// Where it listens.
    #[arg(long)]
    listen: SocketAddr,
}

/// Writers by client.
struct Seats<W>(RwLock<HashMap<u64, Arc<W>>>);

impl<W> Seats<W> {
    fn new() -> Arc<Self> {
        Arc::new(Self(RwLock::default()))
    }

    fn enter(&self, client: u64, writer: &Arc<W>) {
        self.0.write().insert(client, Arc::clone(writer));
    }

    fn leave(&self, client: u64) {
        self.0.write().remove(&client);
    }

    fn partner(&self, client: u64) -> Option<Arc<W>> {
        self.0.read().get(&(client ^ 1)).cloned()
    }
}

/// `/7` is client 7.
fn client_of(path: &str) -> Option<u64> {
    path.strip_prefix('/')?.parse().ok()
}

/// Serves until it is killed.
pub(crate) fn run(relay: &Relay) -> anyhow::Result<()> {
    rlimit::increase_nofile_limit(u64::MAX)?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(relay.listen)?;
        let listener = socket.listen(4096)?;
        match relay.kind {
            Kind::Fastwebsockets => fast::serve(&listener).await,
            Kind::Tungstenite => tungstenite::serve(&listener).await,
        }
    })
}

/// Accepts for ever; each connection is a task of its own.
async fn accept<F: Future<Output = ()> + Send + 'static>(
    listener: &TcpListener,
    mut serve: impl FnMut(tokio::net::TcpStream) -> F,
) -> anyhow::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(serve(stream));
    }
}
