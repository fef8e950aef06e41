//! Switchboard, embedded: its binary with a folder of its own, tokens by its `token` command.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, ensure};

use super::process::{self, Server, answers};
use super::{Durability, Peer, Turn};
use crate::compare::dialect::{self, Dialect};

pub(crate) struct Switchboard {
    pub(crate) binary: PathBuf,
}

impl Switchboard {
    fn command(&self) -> Command {
        process::command(&self.binary, "SWITCHBOARD_")
    }
}

impl Peer for Switchboard {
    fn name(&self) -> String {
        "Switchboard".into()
    }

    fn durability(&self) -> Durability {
        Durability::Fsync
    }

    fn remarks(&self) -> &'static str {
        "accepted after fsync; mailboxes of both users; events acknowledged"
    }

    fn start(&self, turn: &Turn<'_>) -> anyhow::Result<(Server, Arc<dyn Dialect>)> {
        let (data, tokens) = (turn.dir.join("data"), turn.dir.join("tokens"));
        let mut command = self.command();
        command.args(["serve", "--listen", &turn.address.to_string(), "--data"]).arg(&data);
        // few clients may be told to send much
        command.env("SWITCHBOARD_LIMITS__SENDS_PER_S", "5000").env("SWITCHBOARD_LIMITS__SENDS_BURST", "5000");
        let server = Server::start(&command, turn.dir)?;
        server.wait(|| answers(turn.address, "/ready"))?;
        let users = format!("1-{}", turn.clients);
        let made = self.command().args(["token", "--users", &users, "--out"]).arg(&tokens).arg("--data").arg(&data).output();
        let made = made.context("switchboard token")?;
        ensure!(made.status.success(), "switchboard token: {}", String::from_utf8_lossy(&made.stderr));
        let accounts = loadtest::tokens::read(&tokens)?;
        ensure!(accounts.len() == turn.clients, "{} tokens for {} clients", accounts.len(), turn.clients);
        let tokens = accounts.into_iter().map(|account| account.token).collect();
        Ok((server, Arc::new(dialect::switchboard::Switchboard { tokens })))
    }
}
