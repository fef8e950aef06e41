//! The bare relays of this crate, started from this binary.

use std::process::Command;
use std::sync::Arc;

use anyhow::Context as _;
use clap::ValueEnum as _;

use super::process::{Server, listens};
use super::{Durability, Peer, Turn};
use crate::compare::dialect::{self, Dialect};
use crate::relay::Kind;

pub(crate) struct Relay {
    pub(crate) kind: Kind,
    /// The binary with the command `relay`.
    pub(crate) binary: std::path::PathBuf,
}

impl Peer for Relay {
    fn name(&self) -> String {
        match self.kind {
            Kind::Fastwebsockets => "fastwebsockets relay".into(),
            Kind::Tungstenite => "tungstenite relay".into(),
        }
    }

    fn durability(&self) -> Durability {
        Durability::None
    }

    fn remarks(&self) -> &'static str {
        "a frame goes to the partner's socket; no account, no answer"
    }

    fn start(&self, turn: &Turn<'_>) -> anyhow::Result<(Server, Arc<dyn Dialect>)> {
        let kind = self.kind.to_possible_value().context("every kind has a name")?;
        let mut command = Command::new(&self.binary);
        command.args(["relay", "--kind", kind.get_name(), "--listen", &turn.address.to_string()]);
        let server = Server::start(&command, turn.dir)?;
        server.wait(|| listens(turn.address))?;
        Ok((server, Arc::new(dialect::relay::Relay)))
    }
}
