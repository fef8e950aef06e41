//! The closed list of WebSocket close codes the server sends. Below 4400: RFC 6455 section 7.4.1. Ours mirror HTTP's numbers.

/// Why a connection was closed; `docs/protocol.md` says what a client does about each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u16)]
pub enum CloseCode {
    /// Finished.
    Normal = 1000,
    /// WebSocket protocol error.
    Protocol = 1002,
    /// Binary where text was agreed, or text where binary was.
    Unsupported = 1003,
    /// Text that is not UTF-8.
    NotUtf8 = 1007,
    /// A fragmented message was not finished in time.
    Policy = 1008,
    /// Frame or message over the limit.
    TooBig = 1009,
    /// Bad request.
    BadRequest = 4400,
    /// No token, a bad or expired one, or no `hello` in time.
    Unauthenticated = 4401,
    /// The token is for another device.
    Forbidden = 4403,
    /// The connection did not take data.
    TooSlow = 4408,
    /// The same device connected again.
    Superseded = 4409,
    /// The stream's epoch changed.
    EpochChanged = 4410,
    /// Protocol version not supported.
    Version = 4426,
    /// Far over a limit.
    Rate = 4429,
    /// The server is stopping, or failed inside.
    Draining = 4500,
}

impl CloseCode {
    /// The number on the wire.
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// A short name for metric labels and as the close reason.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Protocol => "protocol_error",
            Self::Unsupported => "unsupported_data",
            Self::NotUtf8 => "not_utf8",
            Self::Policy => "policy",
            Self::TooBig => "too_big",
            Self::BadRequest => "bad_request",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::TooSlow => "too_slow",
            Self::Superseded => "superseded",
            Self::EpochChanged => "epoch_changed",
            Self::Version => "version 1 to 1 is supported",
            Self::Rate => "rate",
            Self::Draining => "draining",
        }
    }
}

/// Whether a peer may send this code in a close frame (RFC 6455 section 7.4.2 and the registry it opens).
pub const fn acceptable_from_peer(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}
