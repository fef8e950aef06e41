//! The port by which a committed event reaches the gateways: in one process the gateway's sessions themselves, in a cluster
//! [`crate::link::LinkDeliver`], a stream to each node.
//! A push is a hint that carries the event along. Lost, it is a delay: the mailbox is the truth.

use protocol::receipt::Receipt;
use protocol::record::Event;
use protocol::{DeviceName, UserId};
use router::registry::NodeId;

/// An event for the sessions of its owner.
#[derive(Debug, Clone)]
pub struct Push {
    /// Whose mailbox it is in.
    pub owner: UserId,
    /// Incarnation of that mailbox.
    pub epoch: u64,
    /// The event.
    pub event: Event,
}

/// A receipt for the sessions of its owner.
#[derive(Debug, Clone, Copy)]
pub struct ReceiptPush {
    /// Whose mailbox it is in.
    pub owner: UserId,
    /// Incarnation of that mailbox.
    pub epoch: u64,
    /// The receipt.
    pub receipt: Receipt,
}

/// Connections that have something to write but are not told yet. Told when this is dropped: so the reports of the same batch can join, and
/// each connection wakes once.
pub trait Wake: Send {}

impl Wake for () {}

/// Takes events to sessions.
pub trait Deliver: Send + Sync + 'static {
    /// Hands a batch to the sessions on one node. Never blocks; what does not fit into a session's bounded queue is read from the store later.
    fn push(&self, node: NodeId, pushes: Vec<Push>) -> Box<dyn Wake>;

    /// The same with receipts, ascending by revision. What does not get through is read from the store later. Who cannot carry them drops them,
    /// which is the default.
    fn receipts(&self, node: NodeId, pushes: Vec<ReceiptPush>) -> Box<dyn Wake> {
        let _ = node;
        metrics::counter!("switchboard_drops_total", "what" => "receipt", "why" => "not_carried").increment(pushes.len() as u64);
        Box::new(())
    }
}

/// Takes what a gateway has to say to another gateway.
pub trait Elsewhere: Send + Sync + 'static {
    /// Tells a node that a device has attached here, in place of the registration with this counter there. Says whether it was taken; lost, the
    /// node learns it when it enters its sessions into the registry again.
    fn supersede(&self, node: NodeId, user: UserId, device: &DeviceName, counter: u64) -> bool;
}
