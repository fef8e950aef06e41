//! Load and fault tests for Switchboard: a client of its own, a careful chat client, and judges that trust nobody.
//!
//! The path, in reading order: [`frame`] (the wire, written again from `docs/protocol.md`, sharing no code with the
//! server) → [`client`] (one WebSocket connection) → [`actor`] (a user's device that survives faults) → [`record`]
//! (what every client saw) → [`audit`] (what the server still has at the end) → [`check`] (the verdict).
//! Beside it stand the load scenarios: [`pace`] (open loop), [`process`] (what the server costs), [`scenario`].
//!
//! Invariants: the checkers read only what clients recorded and what the server answered at the end; latency counts
//! from the intended send time; a client's memory is bounded by its outbox and its socket buffers.
//!
//! Loss policy: an actor never gives up a send. It ends settled (accepted or finally refused) or it is reported.
//!
//! Deliberately absent: TLS, any use of the server's codec, and any look into the server's storage.

pub mod frame;

pub mod client;

pub mod actor;

pub mod record;

pub mod audit;

pub mod check;

pub mod pace;

pub mod process;

pub mod tokens;

pub mod scenario;
