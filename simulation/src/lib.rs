//! The cluster path in one deterministic process: the real gateway, router and storage code over ports in memory that delay, fail and crash.
//!
//! **Path of a message through this crate.** A simulated [`client`] speaks frames over a cut-prone wire ([`net`]) to the gateway crate's own
//! connection; its record is appended to the memory log, the real router and storage loops take it from there, and the push comes back over
//! links that break ([`faults`]) into the gateway's own sessions. A [`node`] is one process of the cluster, wired as the server wires it: a
//! lease, the real assignment, its share of the partitions, a gateway. Every port is wrapped by [`faults`]; [`chaos`] kills, pauses and cuts off
//! processes, moves shards and sets them back; at the end [`checker`] judges what everybody has, and [`races`] says which races happened at all.
//!
//! **Invariants.** One thread, a virtual clock, one seeded generator, and nothing of the machine ([`determinism`]): a seed replays exactly, in
//! every process. What survives a crash is only what a durable port holds. A checker that finds nothing proves nothing unless the planted bugs
//! are found: `tests/planted.rs`.
//!
//! **Deliberately absent.** Sockets, the HTTP upgrade, tokens' signatures; Kafka, Redis and databases, whose clients run their own contract
//! suites. What they do is written down once more in [`faults`]: what differs from the engines is not found here but by the rows of the
//! crate `faults`.

pub mod determinism;
pub mod sim;
pub mod process;
pub mod faults;
pub mod node;
pub mod net;
pub mod client;
pub mod world;
pub mod chaos;
pub mod checker;
pub mod races;

pub use world::{Outcome, run};
