//! Load and fault tests for Switchboard: a client of its own, a careful chat client, and judges that trust nobody.
//!
//! The path, in reading order: [`frame`] (the wire, written again from `docs/protocol.md`, sharing no code with the
//! server but the types that are generated from the published `.proto`) → [`client`] (one WebSocket connection, over [`tls`] if its url says so) → [`actor`] (a user's device that survives faults) → [`record`]
//! (what every client saw) → [`audit`] (what the server still has at the end) → [`settle`] (all of that, for all of them) → [`check`] (the verdict).
//! Beside it stands the load generator: [`scenario`] (what a run does) → [`fleet`] (several processes as one) →
//! [`crew`] (the clients of one process: [`pace`], [`contacts`], [`body`], its own streaming judge) → [`series`]
//! (histograms that merge) → [`report`]. [`prepare`] makes sure of the server and the tokens before.
//!
//! Invariants: the checkers read only what clients recorded and what the server answered at the end; latency counts
//! from the intended send time; memory is what is under way, however long a run is.
//!
//! Loss policy: an actor never gives up a send. It ends settled (accepted or finally refused) or it is reported.
//!
//! Deliberately absent: any use of the server's codec, and any look into the server's storage.

pub mod frame;

pub mod client;

pub mod tls;

pub mod actor;

pub mod record;

pub mod audit;

pub mod settle;

pub mod check;

pub mod process;

pub mod tokens;

pub mod scenario;

pub mod pace;

pub mod body;

pub mod contacts;

pub mod series;

pub mod crew;

pub mod fleet;

pub mod prepare;

pub mod report;
