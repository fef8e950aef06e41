//! Identifiers. Each has one textual form, checked when it is read.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

/// Why a text is not the identifier it should be. The text of the error is shown to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not a user: a decimal number from 1 to 2^63-2^32-1 without sign or leading zero.
    #[error("a user is a decimal string from \"1\" to \"9223372032559808511\"")]
    User,
    /// Not a conversation such as `d:42:43`.
    #[error("a direct conversation is \"d:<lower user>:<higher user>\"")]
    Conversation,
    /// Not a device name.
    #[error("a device is 1 to 64 characters of A-Z a-z 0-9 . _ -")]
    Device,
    /// Not a UUID of version 7 in the hyphenated form.
    #[error("an id is a UUID of version 7, hyphenated, in lower case")]
    Message,
    /// Not a 64-bit position.
    #[error("a position is a decimal string of 64 bits")]
    Position,
}

/// Decimal digits without sign, blank or leading zero: one text for one number.
fn canonical_u64(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !plain || (text.len() > 1 && text.starts_with('0')) {
        return None;
    }
    text.parse().ok()
}

/// A user. In text a decimal string; below 2^63, so that any SQL database can hold it; the last 2^32 are the server's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(u64);

impl UserId {
    /// The server itself: owner of the canary's mailbox. Never a client's.
    pub const SERVER: Self = Self(0);

    /// From here on, up to 2^63-1, a number is no client's.
    const SERVERS: u64 = (1 << 63) - (1 << 32);

    /// Owner of one of the canaries' mailboxes, spread over the virtual shards. None is ever a client's.
    pub const fn canary(number: u16) -> Self {
        match number {
            0 => Self::SERVER,
            // the stride is a prime, so that they fall into different shards and databases
            more => Self(Self::SERVERS + more as u64 * 10_007),
        }
    }

    /// Whether it is the server itself: the sender of canaries.
    pub const fn is_server(self) -> bool {
        Self::new(self.0).is_none()
    }

    /// A user by number, or nothing when it is 0 or one of the server's.
    pub const fn new(number: u64) -> Option<Self> {
        if number == 0 || number >= Self::SERVERS { None } else { Some(Self(number)) }
    }

    /// From a number that was stored before; 0 is the server.
    pub const fn from_stored(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for UserId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        canonical_u64(text).and_then(Self::new).ok_or(IdError::User)
    }
}

/// A conversation. Its kind never changes. A direct one is named by its two users, the lower first, so both sides agree unasked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConversationId {
    /// Two users, or one with oneself; the first is never the higher.
    Direct(UserId, UserId),
}

impl ConversationId {
    /// Length of [`Self::key`].
    pub const KEY_LEN: usize = 17;

    /// The direct conversation of two users, in either order.
    pub fn direct(one: UserId, other: UserId) -> Self {
        if one <= other { Self::Direct(one, other) } else { Self::Direct(other, one) }
    }

    /// Whether this user is in it.
    pub fn has(self, user: UserId) -> bool {
        match self {
            Self::Direct(low, high) => user == low || user == high,
        }
    }

    /// A fixed-width key: kind, then ids big-endian. Stored and hashed; never changes.
    pub fn key(self) -> [u8; Self::KEY_LEN] {
        let mut key = [0; Self::KEY_LEN];
        match self {
            Self::Direct(low, high) => {
                key[0] = b'd';
                key[1..9].copy_from_slice(&low.get().to_be_bytes());
                key[9..].copy_from_slice(&high.get().to_be_bytes());
            }
        }
        key
    }

    /// The conversation of a key made by [`Self::key`], or nothing.
    pub fn from_key(key: &[u8]) -> Option<Self> {
        let key: &[u8; Self::KEY_LEN] = key.try_into().ok()?;
        let number = |at: usize| key[at..at + 8].try_into().map(u64::from_be_bytes).ok();
        (key[0] == b'd').then_some(())?;
        Some(Self::direct(UserId::from_stored(number(1)?), UserId::from_stored(number(9)?)))
    }
}

impl fmt::Display for ConversationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(low, high) => write!(f, "d:{low}:{high}"),
        }
    }
}

impl FromStr for ConversationId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let (low, high) = text.strip_prefix("d:").and_then(|rest| rest.split_once(':')).ok_or(IdError::Conversation)?;
        let parse = |user: &str| user.parse::<UserId>().map_err(|_| IdError::Conversation);
        let (low, high) = (parse(low)?, parse(high)?);
        if low > high {
            return Err(IdError::Conversation);
        }
        Ok(Self::Direct(low, high))
    }
}

/// A client's name for one installation of itself, 1–64 characters of a small alphabet.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceName(Box<str>);

impl DeviceName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for DeviceName {
    fn default() -> Self {
        Self("default".into())
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for DeviceName {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let good = (1..=crate::limits::DEVICE_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed);
        good.then(|| Self(text.into())).ok_or(IdError::Device)
    }
}

/// A message's id, chosen by the client: a UUID of version 7 (RFC 9562 section 5.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(Uuid);

impl MessageId {
    /// A UUID, if it is of version 7.
    pub fn new(uuid: Uuid) -> Option<Self> {
        (uuid.get_version_num() == 7 && uuid.get_variant() == uuid::Variant::RFC4122).then_some(Self(uuid))
    }

    /// From 16 bytes that a client sent, if they are a UUID of version 7.
    pub fn from_client(bytes: &[u8]) -> Option<Self> {
        Uuid::from_slice(bytes).ok().and_then(Self::new)
    }

    /// From 16 bytes that were stored before.
    pub fn from_stored(bytes: &[u8]) -> Option<Self> {
        Uuid::from_slice(bytes).ok().map(Self)
    }

    /// The 16 bytes; they sort by the id's own time.
    pub fn bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// The id's own time, milliseconds since 1970.
    pub fn time_ms(self) -> u64 {
        let bytes = self.0.as_bytes();
        bytes[..6].iter().fold(0, |time, byte| time << 8 | u64::from(*byte))
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl FromStr for MessageId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        // one text for one id: answers carry it as it was sent
        let canonical = text.len() == 36 && !text.bytes().any(|b| b.is_ascii_uppercase());
        let uuid = canonical.then(|| Uuid::try_parse(text).ok()).flatten();
        uuid.and_then(Self::new).ok_or(IdError::Message)
    }
}

/// Order in one mailbox: 1, 2, 3, … without holes. 0 stands before the first.
pub type Seq = u64;

/// Order in one conversation: the log epoch in the upper 16 bits, the offset in its partition below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Position(u64);

impl Position {
    const OFFSET_BITS: u32 = 48;
    /// After every position.
    pub const MAX: Self = Self(u64::MAX);

    /// The position of a record in a log partition. `offset` has 48 bits.
    pub const fn new(log_epoch: u16, offset: u64) -> Self {
        Self((log_epoch as u64) << Self::OFFSET_BITS | (offset & ((1 << Self::OFFSET_BITS) - 1)))
    }

    /// From the number it was stored as.
    pub const fn from_stored(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Position {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        canonical_u64(text).map(Self).ok_or(IdError::Position)
    }
}

/// In JSON an identifier is its text.
macro_rules! json_as_text {
    ($($name:ty),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    )*};
}
json_as_text!(UserId, ConversationId, DeviceName, MessageId, Position);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_for_each_user() {
        for bad in [
            "",
            "0",
            "01",
            "+1",
            "-1",
            " 1",
            "1 ",
            "1.0",
            "9223372032559808512",
            "9223372036854775808",
            "18446744073709551616",
            "x",
            "١",
        ] {
            assert_eq!(bad.parse::<UserId>(), Err(IdError::User), "{bad}");
        }
        assert_eq!("9223372032559808511".parse::<UserId>().unwrap().to_string(), "9223372032559808511");
        assert_eq!(UserId::new(UserId::canary(3).get()), None, "no client is a canary");
    }

    #[test]
    fn a_direct_conversation_has_one_name_and_one_key() {
        let user = |n| UserId::new(n).unwrap();
        let one = ConversationId::direct(user(43), user(42));
        assert_eq!(one.to_string(), "d:42:43");
        assert_eq!(ConversationId::from_key(&one.key()), Some(one));
        assert_eq!("d:42:42".parse::<ConversationId>().unwrap(), ConversationId::direct(user(42), user(42)));
        for bad in ["d:43:42", "d:42", "d:42:43:44", "g:1", "d:0:1", "d:042:43", ""] {
            assert!(bad.parse::<ConversationId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn only_version_7_is_a_message_id() {
        let good = "01932f6e-5c1e-7c3a-9d4e-1f2a3b4c5d6e";
        assert_eq!(good.parse::<MessageId>().unwrap().time_ms(), 0x0193_2f6e_5c1e);
        for bad in [
            "00000000-0000-0000-0000-000000000000",
            "01932f6e-5c1e-4c3a-9d4e-1f2a3b4c5d6e",
            "01932f6e5c1e7c3a9d4e1f2a3b4c5d6e",
            "01932F6E-5C1E-7C3A-9D4E-1F2A3B4C5D6E",
            "01932f6e-5c1e-7c3a-1d4e-1f2a3b4c5d6e",
            "",
            "x",
        ] {
            assert!(bad.parse::<MessageId>().is_err(), "{bad}");
        }
    }
}
