//! Sessions: one for each device of a user, named by a random number that every token of it carries.

use std::fmt;
use std::str::FromStr;

use protocol::{DeviceName, UserId};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::phone::Phone;

/// How long an access token is good, seconds: 7 days.
pub const ACCESS_S: u64 = 7 * 24 * 3600;

/// Names a session: 128 random bits, in text 32 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sid([u8; 16]);

/// Not the text of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a session is 32 lower-case hexadecimal digits")]
pub struct NotASid;

impl Sid {
    /// A new one.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// From its bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl FromStr for Sid {
    type Err = NotASid;

    fn from_str(text: &str) -> Result<Self, NotASid> {
        let plain = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let number = plain.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        number.map(|number| Self(number.to_be_bytes())).ok_or(NotASid)
    }
}

impl Serialize for Sid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Sid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// What a right code or a good refresh token gives: everything that is said in the tokens made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Who.
    pub user: UserId,
    /// Its number.
    pub phone: Phone,
    /// The device the tokens are bound to.
    pub device: DeviceName,
    /// The session.
    pub sid: Sid,
    /// Whether the account was made just now.
    pub new: bool,
    /// When the tokens were made, milliseconds since 1970. An answer that is given again has the time of the first.
    pub issued_ms: u64,
    /// The refresh token.
    pub refresh_token: String,
    /// Until when it is good, milliseconds since 1970.
    pub refresh_until_ms: u64,
}

/// Why a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The device logged itself out.
    LogOut,
    /// Another device of the user logged it out.
    Remote,
    /// A used refresh token came again: somebody has a copy.
    Reuse,
    /// The same device logged in anew.
    Replaced,
    /// The user had too many devices, and this one was not seen for longest.
    Displaced,
    /// `switchboard user revoke`.
    Operator,
}

impl Why {
    /// As it is stored and counted.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LogOut => "log_out",
            Self::Remote => "remote",
            Self::Reuse => "reuse",
            Self::Replaced => "replaced",
            Self::Displaced => "displaced",
            Self::Operator => "operator",
        }
    }
}

/// A session that has ended, as whoever holds its sockets must know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Which.
    pub sid: Sid,
    /// Whose.
    pub user: UserId,
    /// When its last access token expires, milliseconds since 1970.
    pub access_until_ms: u64,
}

/// A device with a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its session.
    pub sid: Sid,
    /// Its name.
    pub device: DeviceName,
    /// What its owner sees it as; may be empty.
    pub label: String,
    /// When it logged in, milliseconds since 1970.
    pub created_ms: u64,
    /// When it was last heard of, milliseconds since 1970.
    pub seen_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_for_each_session() {
        let sid = Sid::random();
        assert_eq!(sid.to_string().parse::<Sid>(), Ok(sid));
        assert_eq!(Sid::from_bytes([0; 16]).to_string(), "0".repeat(32));
        for bad in ["", "0", &"0".repeat(31), &"A".repeat(32), &"+".repeat(32), &format!("+{}", "0".repeat(31))] {
            assert!(bad.parse::<Sid>().is_err(), "{bad}");
        }
    }
}
