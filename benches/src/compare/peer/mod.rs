//! The servers that are compared. Each file says how one is set up, started and spoken to, and what it promises.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use super::dialect::Dialect;
use process::Server;

pub(crate) mod process;

pub(crate) mod centrifugo;
pub(crate) mod ejabberd;
pub(crate) mod nats;
pub(crate) mod reference;
pub(crate) mod relay;
pub(crate) mod switchboard;
pub(crate) mod wukongim;

/// When the sender's message is safe: peers of different kinds do different work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Nothing is kept and nothing is answered.
    None,
    /// In memory; a crash loses it.
    Memory,
    /// On disk before the sender is answered.
    Fsync,
}

impl Durability {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Memory => "in memory",
            Self::Fsync => "fsync",
        }
    }
}

/// What a peer is given for one turn.
pub(crate) struct Turn<'a> {
    /// An empty folder of its own.
    pub(crate) dir: &'a Path,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Clients that will enter.
    pub(crate) clients: usize,
}

/// One server of the comparison.
pub(crate) trait Peer {
    /// Its name in the table.
    fn name(&self) -> String;
    /// What it promises.
    fn durability(&self) -> Durability;
    /// What its clients do and what of it is answered, in a few words.
    fn remarks(&self) -> &'static str;
    /// Starts it and returns when it serves: accounts are made by then.
    ///
    /// # Errors
    /// When it does not come up; its log is part of what is said.
    fn start(&self, turn: &Turn<'_>) -> anyhow::Result<(Server, Arc<dyn Dialect>)>;

    /// Makes what pairs have when they do not write for the first time: between what is measured with idle clients and the messages. The first
    /// `writers` clients will write.
    ///
    /// # Errors
    /// When it cannot be made.
    fn acquaint(&self, _writers: usize) -> anyhow::Result<()> {
        Ok(())
    }
}
