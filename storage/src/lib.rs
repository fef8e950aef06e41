//! Mailboxes: for each owner a dense sequence of events that is history, offline queue and resume point in one.
//!
//! **Path of a message through this crate.** Embedded: [`cycle`] takes what has arrived, expands it, [`sequence`] (pure) gives each mailbox its
//! next seq and leaves out repeats, one atomic batch goes to the [`store`] with fsync, then senders are told and [`push`] carries the events to
//! their sessions. In a cluster [`consume`] reads the mailbox log instead, skips repeats and finds holes by the chain, and commits with a
//! compare-and-set of the checkpoint. Readers come back through [`store::Store::read`].
//!
//! **Invariants.** A mailbox is dense from floor to head. Identity is unique in each mailbox. Commit, then look up where the owner is, then push.
//! One writer: the commit of a stale owner is refused by the store itself.
//!
//! **Loss policy.** Only pushes may be lost. A commit that fails is tried again from the checkpoint; an fsync that fails ends the process,
//! because nothing said after it could be trusted. A full queue refuses new sends by name (`unavailable`).
//!
//! **Deliberately absent.** Sockets, encodings, who may talk to whom.

pub mod cycle;
pub mod consume;
pub mod sequence;
pub mod receipt;
pub mod push;
pub mod follow;
pub mod link;
pub mod store;
pub mod retention;
pub mod lag;
pub mod error;

pub use error::StorageError;
