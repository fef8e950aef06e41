//! NATS with its WebSocket listener; core NATS, a user and a password, no JetStream.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use super::process::{Server, listens};
use super::{Durability, Peer, Turn};
use crate::compare::dialect::{self, Dialect};

pub(crate) struct Nats {
    pub(crate) binary: PathBuf,
}

const USER: &str = "bench";
const PASSWORD: &str = "secret";

impl Peer for Nats {
    fn name(&self) -> String {
        "NATS (core)".into()
    }

    fn durability(&self) -> Durability {
        Durability::Memory
    }

    fn remarks(&self) -> &'static str {
        "at most once; one subject a client; a PUB is not answered"
    }

    fn start(&self, turn: &Turn<'_>) -> anyhow::Result<(Server, Arc<dyn Dialect>)> {
        let config = turn.dir.join("nats.conf");
        // the port for clients without WebSocket is chosen by the system and not used
        let text = format!(
            "host: \"127.0.0.1\"\nport: -1\nauthorization {{ user: {USER}, password: {PASSWORD} }}\nmax_connections: 1000000\n\
             websocket {{ host: \"{}\", port: {}, no_tls: true, compression: false }}\n",
            turn.address.ip(),
            turn.address.port()
        );
        std::fs::write(&config, text)?;
        let mut command = Command::new(&self.binary);
        command.arg("-c").arg(config);
        let server = Server::start(&command, turn.dir)?;
        server.wait(|| listens(turn.address))?;
        Ok((server, Arc::new(dialect::nats::Nats { user: USER, password: PASSWORD })))
    }
}
