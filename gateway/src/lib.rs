//! Sockets, sessions and HTTP: from bytes to a submitted record, and from a pushed event back to bytes.
//!
//! **Path of a message through this crate.** In: [`listener`] accepts under a limit, over TLS if there is a certificate ([`tls`]), [`handshake`] upgrades
//! ([`forwarded`] says for whom, [`limiter`] whether there is room), one [`connection`] task owns the
//! socket; [`frame_reader`] (pure) makes messages of bytes, [`command`] checks them, [`lanes`] (pure) keep sends of one conversation in order,
//! [`pressure`] says when a refused one may come again, and the record goes to the router's `Submit` port. Its report comes back through the connection's [`outbox`]. Out: storage hands
//! committed events to [`deliver`], which puts them into outboxes; [`session`] (pure) decides what is written, what is a repeat and what is a
//! hole to be read from the store; [`outbound`] writes many frames in one system call.
//!
//! **Invariants.** Register, then read: a session is entered in the registry before its mailbox is read, so no event falls between. A session
//! writes seq c+1, c+2, … each once. Nothing is called accepted here: only a report says so. A connection holds no buffer while idle.
//! Nothing of one connection waits for another.
//!
//! **Loss policy.** A push that does not fit into an outbox is forgotten and its seq noted: the session reads it from the store. Pings and pongs
//! over their rate are dropped and counted. A peer that does not take data for 20 s is closed (4408); its mailbox waits.
//!
//! **Deliberately absent.** Partitions, SQL, who may talk to whom, compression (a bomb's best friend).

pub mod config;
pub mod token;
pub mod limiter;
mod shared_rate;
pub mod listener;
pub mod tls;
pub mod stream;
pub mod forwarded;
pub mod handshake;
mod event_stream;
pub mod connection;
pub mod frame_reader;
pub mod command;
pub mod attach;
pub mod goodbyes;
pub mod known;
pub mod lanes;
pub mod pressure;
pub mod receipts;
pub mod outbox;
pub mod hints;
pub mod deliver;
pub mod heal;
pub mod session;
pub mod told;
pub mod outbound;
pub mod wheel;
pub mod cursors;
pub mod presence;
pub mod canary;
pub mod drain;
pub mod http;
pub mod node;
pub mod metrics;
pub mod error;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;

pub use error::GatewayError;
pub use node::{Gateway, Ports};
