//! Encodings of frames. One protocol, several encodings, chosen by the WebSocket sub-protocol.

mod check;
pub mod json;
pub mod proto;

use crate::frame::{ClientFrame, FrameError, ServerFrame};
use crate::record::Event;

/// An encoding, fixed for a connection by its handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// `switchboard.v1.json`: text frames.
    #[default]
    Json,
    /// `switchboard.v1.proto`: binary frames.
    Proto,
}

impl Encoding {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Json, Self::Proto];

    /// A short name for metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Proto => "proto",
        }
    }

    /// The sub-protocol that names it.
    pub const fn subprotocol(self) -> &'static str {
        match self {
            Self::Json => "switchboard.v1.json",
            Self::Proto => "switchboard.v1.proto",
        }
    }

    /// The encoding that a sub-protocol names, or nothing.
    pub fn of_subprotocol(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|encoding| encoding.subprotocol() == name)
    }

    /// Whether its messages are text (else binary).
    pub const fn is_text(self) -> bool {
        match self {
            Self::Json => true,
            Self::Proto => false,
        }
    }

    /// Reads a client's frame.
    ///
    /// # Errors
    /// [`FrameError`] names the code, the field and, where it could be read, the send's id.
    pub fn decode(self, bytes: &[u8]) -> Result<ClientFrame, FrameError> {
        match self {
            Self::Json => json::decode(bytes),
            Self::Proto => proto::decode(bytes),
        }
    }

    /// Appends a server's frame.
    pub fn encode(self, frame: &ServerFrame, out: &mut Vec<u8>) {
        match self {
            Self::Json => json::encode(frame, out),
            Self::Proto => proto::encode(frame, out),
        }
    }

    /// Appends an event. The part that all receivers share is encoded once in each encoding.
    pub fn event(self, event: &Event, out: &mut Vec<u8>) {
        match self {
            Self::Json => json::event(event, out),
            Self::Proto => proto::event(event, out),
        }
    }
}
