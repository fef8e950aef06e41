//! What crosses a wire or a log, and nothing else: no I/O, no async, no clock.
//!
//! **Path of a message through this crate**: bytes of a frame → [`codec`] → [`frame::ClientFrame`] → [`record::Record`] (what the log
//! keeps) → [`record::Message`] (a record with its position) → [`record::Event`] (a message in one mailbox, with its seq) → bytes again.
//!
//! **Invariants.** Identity of a message is (sender, conversation, id), [`record::Identity`]. Every number that a client may send is
//! checked here, so the crates behind may assume it. Encodings of records only grow: fields are tagged and never reused.
//!
//! **Loss policy.** A frame that cannot be read is answered with a [`error_code::ErrorCode`], never dropped in silence.
//!
//! **Deliberately absent.** Sockets, time zones, user accounts, anything that differs between two deployments except [`limits`].

pub mod id;
pub mod limits;
pub mod frame;
pub mod codec;
pub mod record;
pub mod receipt;
pub mod error_code;
pub mod close_code;
pub mod plant;

pub use close_code::CloseCode;
pub use error_code::ErrorCode;
pub use id::{ConversationId, DeviceName, MessageId, Position, Seq, UserId};
