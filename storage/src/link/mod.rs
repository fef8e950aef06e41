//! Direct streams between nodes: committed events go to gateways, requests to rewind go to routers.
//!
//! **Path.** A storage owner calls [`LinkDeliver`]: for its own node it is the local `Deliver`; for another the batch is encoded ([`batch`]) and
//! put into that peer's bounded queue ([`queue`], pure). One task a peer dials, proves who it is ([`handshake`], pure) and writes what waits,
//! many frames a system call. [`listen`] takes such streams, cuts them into frames ([`frame`]) and hands them on. A link goes one way: two nodes
//! that push to each other have two.
//!
//! **What may be lost, and how it is known.** A push is a hint. It is dropped, and counted, when there is no link or the queue is full, and when a
//! link breaks. The receiver hears of it ([`track`], pure): by a new link, by a counter that jumps, by a link that ends; then the gateway compares
//! the heads of all its sessions at once. Both ends send a beat each second; four seconds without a byte and the link is broken, so a cut that
//! nobody announced is noticed in five.
//!
//! **Invariants.** `push` never waits for the network. A drop before a link's first frame is covered by that frame, a later one by the counter.
//! What is meant for a former boot of a node is refused. Queues, peers, handshakes, frames and retries are bounded; nothing is allocated
//! because a peer claims a length.
//!
//! **Trust.** The secret proves who dials and who answers; what is said afterwards is neither encrypted nor signed, on purpose: the network
//! between the nodes is trusted, as it is for the log and the databases. Where it is not, TLS with certificates on both sides belongs right around
//! the socket, below the handshake (`sender::connect`, `receiver::Host::serve`); it is not built yet.
//!
//! **Deliberately absent.** Who is a member and at which address (the caller says), retries of pushes, acknowledgements.

use std::time::Duration;

mod batch;
mod frame;
#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz;
mod handshake;
mod meters;
mod queue;
mod receiver;
mod rewind;
mod sender;
#[cfg(feature = "plant")]
pub mod simulated;
mod track;

pub use handshake::{BadCredentials, Credentials};
pub use receiver::{Inbox, Listener, Superseded, listen};
pub use rewind::{RewindSender, Routers};
pub use sender::{Find, LinkDeliver};

/// Bounds of links. Both sides should have the same `beat` and `silence`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Pushes that wait for one peer; more are dropped.
    pub queue_pushes: usize,
    /// Encoded bytes that wait for one peer.
    pub queue_bytes: usize,
    /// Peers dialed, and links taken: each so many.
    pub peers: usize,
    /// Connections that have not proved themselves yet; more are closed at once.
    pub handshakes: usize,
    /// Longest time until a TCP connection stands.
    pub dial: Duration,
    /// Longest handshake.
    pub handshake: Duration,
    /// Longest pause between two attempts to reach a peer; the pause is random below.
    pub retry: Duration,
    /// How often each side shows that it lives.
    pub beat: Duration,
    /// Without a byte for so long a link is broken.
    pub silence: Duration,
    /// A peer that is not linked and no member for so long is forgotten.
    pub gone: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue_pushes: 8192,
            queue_bytes: 8 << 20,
            peers: 512,
            handshakes: 64,
            dial: Duration::from_secs(1),
            handshake: Duration::from_secs(2),
            retry: Duration::from_secs(1),
            beat: Duration::from_secs(1),
            silence: Duration::from_secs(4),
            gone: Duration::from_secs(30),
        }
    }
}

/// Why a link ended.
#[derive(Debug)]
enum Ended {
    Refused(handshake::Refused),
    Failed(std::io::Error),
    Silent,
    Closed,
    /// The same peer has a newer link.
    Replaced,
}

impl From<std::io::Error> for Ended {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<frame::Garbage> for Ended {
    fn from(_: frame::Garbage) -> Self {
        Self::Refused(handshake::Refused::Garbage)
    }
}

impl From<frame::Refuse> for Ended {
    /// As the peer says it; a reason this build does not know is garbage.
    fn from(refuse: frame::Refuse) -> Self {
        Self::Refused(handshake::Refused::of(&refuse.why).unwrap_or(handshake::Refused::Garbage))
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(why) => write!(f, "refused: {}", why.name()),
            Self::Failed(error) => write!(f, "{error}"),
            Self::Silent => f.write_str("silence"),
            Self::Closed => f.write_str("closed by the peer"),
            Self::Replaced => f.write_str("replaced by a newer link"),
        }
    }
}
