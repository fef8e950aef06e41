//! Encodings of frames. One protocol, several encodings, chosen by the WebSocket sub-protocol; Protobuf goes beside JSON here.

pub mod json;

use crate::frame::{ClientFrame, FrameError, ServerFrame};
use crate::record::Event;

/// An encoding, fixed for a connection by its handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// `switchboard.v1.json`: text frames.
    #[default]
    Json,
}

impl Encoding {
    /// The sub-protocol that names it.
    pub const fn subprotocol(self) -> &'static str {
        match self {
            Self::Json => "switchboard.v1.json",
        }
    }

    /// Whether its messages are text (else binary).
    pub const fn is_text(self) -> bool {
        match self {
            Self::Json => true,
        }
    }

    /// Reads a client's frame.
    ///
    /// # Errors
    /// [`FrameError`] names the code, the field and, where it could be read, the send's id.
    pub fn decode(self, bytes: &[u8]) -> Result<ClientFrame, FrameError> {
        match self {
            Self::Json => json::decode(bytes),
        }
    }

    /// Appends a server's frame.
    pub fn encode(self, frame: &ServerFrame, out: &mut Vec<u8>) {
        match self {
            Self::Json => json::encode(frame, out),
        }
    }

    /// Appends an event. The part that all receivers share is encoded once.
    pub fn event(self, event: &Event, out: &mut Vec<u8>) {
        match self {
            Self::Json => json::event(event, out),
        }
    }
}
