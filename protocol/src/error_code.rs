//! The closed list of error codes a client can see. Internal text never leaves the server.

use serde::{Deserialize, Serialize};

/// Why a frame was not taken. In JSON the snake_case name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// Not a JSON object with a `type`.
    BadRequest,
    /// No such `type`.
    UnknownType,
    /// A field is missing or wrong; the frame names it.
    BadField,
    /// Nested deeper than [`crate::limits::NESTING_MAX`].
    TooDeep,
    /// Not a UUID of version 7, or its time is out of range.
    BadId,
    /// An empty body.
    Empty,
    /// A body over the limit.
    TooLarge,
    /// `to` is not a user or a direct conversation of the sender.
    BadRecipient,
    /// Not the client's conversation; the same answer when there is none.
    Forbidden,
    /// The id was used before with another body.
    IdReused,
    /// More than a limit allows at once; the frame names the field.
    TooMany,
    /// Too many sends.
    Rate,
    /// Too many unanswered sends.
    Busy,
    /// An earlier send to this conversation was refused and has not come again.
    Fenced,
    /// The server can't take messages now.
    Unavailable,
    /// No report of the send in time: it may or may not have been taken.
    OutcomeUnknown,
}

impl ErrorCode {
    /// All of them, for metrics and documents.
    pub const ALL: [Self; 16] = [
        Self::BadRequest,
        Self::UnknownType,
        Self::BadField,
        Self::TooDeep,
        Self::BadId,
        Self::Empty,
        Self::TooLarge,
        Self::BadRecipient,
        Self::Forbidden,
        Self::IdReused,
        Self::TooMany,
        Self::Rate,
        Self::Busy,
        Self::Fenced,
        Self::Unavailable,
        Self::OutcomeUnknown,
    ];

    /// The name on the wire and in metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::UnknownType => "unknown_type",
            Self::BadField => "bad_field",
            Self::TooDeep => "too_deep",
            Self::BadId => "bad_id",
            Self::Empty => "empty",
            Self::TooLarge => "too_large",
            Self::BadRecipient => "bad_recipient",
            Self::Forbidden => "forbidden",
            Self::IdReused => "id_reused",
            Self::TooMany => "too_many",
            Self::Rate => "rate",
            Self::Busy => "busy",
            Self::Fenced => "fenced",
            Self::Unavailable => "unavailable",
            Self::OutcomeUnknown => "outcome_unknown",
        }
    }

    /// Whether the same id may still become a message: the refusal speaks of the attempt, not of the id.
    pub const fn retryable(self) -> bool {
        matches!(self, Self::Rate | Self::Busy | Self::Fenced | Self::Unavailable | Self::OutcomeUnknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_what_serde_writes() {
        for code in ErrorCode::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.name());
        }
    }
}
