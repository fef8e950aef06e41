//! Protobuf: one [`v1::ClientFrame`] or [`v1::ServerFrame`] in each binary message. The contract is `proto/switchboard/v1/switchboard.proto`.

mod decode;
mod encode;
mod groups;
/// The types of the contract, generated from it (`tests/contract.rs` checks that, and writes them anew).
#[rustfmt::skip]
#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated")]
pub mod v1;

pub use decode::decode;
pub use encode::{encode, event, message_fields};

#[cfg(test)]
mod tests;
