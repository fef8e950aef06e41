//! Groups, Protobuf's oldest form of nesting, are no part of the contract, and would be all that nests without limit in it: a frame that has one
//! where the decoder looks for fields is refused. What else is wrong with its bytes, the decoder says.

use prost::decode_length_delimiter as varint;

/// The inside of which message.
#[derive(Clone, Copy)]
enum Inside {
    Frame,
    Send,
    Other,
}

impl Inside {
    /// Of the message that a field is, if it is one. `tests.rs` compares this with the contract.
    const fn field(self, tag: usize) -> Option<Self> {
        match (self, tag) {
            (Self::Frame, 2) => Some(Self::Send),
            (Self::Frame, 1..=9) | (Self::Send, 5) => Some(Self::Other),
            _ => None,
        }
    }
}

/// Whether a client's frame has a group, or a wire type that does not exist.
pub(super) fn has_group(frame: &[u8]) -> bool {
    found(frame, Inside::Frame)
}

/// Bytes that are cut short end the search: the decoder refuses them.
fn found(mut bytes: &[u8], inside: Inside) -> bool {
    while let Ok(key) = varint(&mut bytes) {
        let length = match key & 7 {
            0 => varint(&mut bytes).map(|_| 0),
            1 => Ok(8),
            2 => varint(&mut bytes),
            5 => Ok(4),
            _ => return true,
        };
        let Some((value, rest)) = length.ok().and_then(|length| bytes.split_at_checked(length)) else { return false };
        bytes = rest;
        if key & 7 == 2
            && let Some(message) = inside.field(key >> 3)
            && found(value, message)
        {
            return true;
        }
    }
    false
}
