//! From an accepted record to the mailboxes it belongs in.
//!
//! **Path of a message through this crate**: the gateway hands a record to [`submit::Submit`]; it is durable, hence accepted, when that
//! reports so. In a cluster it then stands in the [`log`]'s `messages` topic; [`consume`] reads it there, [`expand`] (pure) says which
//! virtual shards and owners get it, [`chain`] (pure) links what goes to each shard, and it is appended to the `mailbox` topic.
//! [`checkpoint`] remembers how far that is durable. Embedded, the commit cycle of the storage crate calls [`expand`] itself.
//! [`registry`] says on which node a user's devices are; [`members`] which nodes live, [`assign`] (pure) which of them owns a partition.
//!
//! **Invariants.** What is emitted is a function of the log alone: no clock, no registry, no database. The checkpoint is the highest
//! offset that, with all before it, is reported durable. Two routers of one partition say the same; the chain takes it once.
//!
//! **Loss policy.** Nothing is dropped here. A failed append sends the router back to its checkpoint. A partition that meets bytes it cannot
//! read stops and is named.
//!
//! **Deliberately absent.** Sockets, SQL, the sequence numbers of mailboxes, presence.

pub mod submit;
pub mod log;
pub mod consume;
pub mod expand;
pub mod chain;
pub mod checkpoint;
pub mod registry;
pub mod members;
pub mod assign;
pub mod error;

pub use error::RouterError;
