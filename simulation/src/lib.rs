//! The cluster path in one deterministic process: the real router, storage and gateway code over ports in memory that delay, fail and crash.
//!
//! **Path of a message through this crate.** A simulated [`client`] sends over a cut-prone wire to a [`gateway`] made of the gateway crate's own
//! session, lanes, outbox and attach; its record is appended to the memory log, the real router and storage loops take it from there,
//! and the push comes back. Every port is wrapped by [`faults`]; [`world`] starts, kills, pauses and doubles the processes; at the end
//! [`checker`] judges what everybody has, and [`races`] says which races happened at all.
//!
//! **Invariants.** One thread, a virtual clock, one seeded generator: a seed replays exactly. What survives a crash is only what a durable port
//! holds. A checker that finds nothing proves nothing unless the planted bugs are found: `tests/planted.rs`.
//!
//! **Deliberately absent.** Sockets, frames, codecs, tokens; real time; Kafka, Redis and databases, whose clients run their own contract suites.

pub mod sim;
pub mod process;
pub mod faults;
pub mod gateway;
pub mod net;
pub mod client;
pub mod world;
pub mod chaos;
pub mod checker;
pub mod races;

pub use world::{Outcome, run};
