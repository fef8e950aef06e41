//! Every size, count and time limit of the protocol, with the relations between them checked by the compiler.
//! Those that a deployment may change are [`Limits`]; the constants are its defaults or are fixed for good.

use serde::{Deserialize, Serialize};

/// The only protocol version there is.
pub const PROTOCOL_VERSION: u64 = 1;
/// Longest device name, bytes.
pub const DEVICE_BYTES_MAX: usize = 64;
/// Deepest nesting of a JSON frame.
pub const NESTING_MAX: usize = 32;
/// Most fragments of one WebSocket message.
pub const FRAGMENTS_MAX: u32 = 128;
/// Longest time from a message's first fragment to its last, seconds.
pub const FRAGMENTED_S_MAX: u64 = 10;
/// Longest payload of a WebSocket control frame, bytes (RFC 6455 section 5.5).
pub const CONTROL_BYTES_MAX: usize = 125;
/// Longest token, bytes.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Oldest id that is taken, by its own time, days. Identity keys must outlive it.
pub const ID_AGE_DAYS_MAX: u64 = 30;
/// Furthest id in the future that is taken, days.
pub const ID_AHEAD_DAYS_MAX: u64 = 1;
/// Identity keys are kept at least this long, days.
pub const KEY_DAYS_MIN: u64 = 90;
/// Malformed frames in a row of one connection before it is closed.
pub const BAD_FRAMES_MAX: u32 = 3;

/// Unread messages are counted up to here.
pub const UNREAD_MAX: u32 = 1000;
/// Between two `typing` of one connection in one conversation that are passed on, seconds.
pub const TYPING_EVERY_S: u32 = 3;

const _: () = assert!(KEY_DAYS_MIN > ID_AGE_DAYS_MAX + ID_AHEAD_DAYS_MAX, "a repeat must always meet its key");

/// Limits a deployment may change; told to every client in `welcome`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Longest message body, bytes of UTF-8.
    pub body_bytes: usize,
    /// Longest WebSocket frame and longest message, bytes.
    pub frame_bytes: usize,
    /// Sends a second of one user, over all connections.
    pub sends_per_s: u32,
    /// Sends a user may make at once after a pause.
    pub sends_burst: u32,
    /// Unacknowledged events of one connection before it is paused.
    pub window_events: u32,
    /// Unacknowledged bytes of one connection before it is paused; one event always fits.
    pub window_bytes: u32,
    /// Unanswered sends of one connection.
    pub in_flight: u32,
    /// Most messages in one page of history, most rows in one page of conversations.
    pub page_events: u32,
    /// Users whose presence one connection may hear of.
    pub watch_users: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 16 * 1024,
            frame_bytes: 64 * 1024,
            sends_per_s: 50,
            sends_burst: 100,
            window_events: 256,
            window_bytes: 256 * 1024,
            in_flight: 32,
            page_events: 100,
            watch_users: 200,
        }
    }
}

impl Limits {
    /// What is wrong with these limits, by key, or nothing.
    ///
    /// # Errors
    /// The key and what it must be.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let need = |good: bool, key, what: &str| if good { Ok(()) } else { Err((key, what.to_owned())) };
        need((1..=1 << 20).contains(&self.body_bytes), "limits.body_bytes", "from 1 to 1048576")?;
        need(self.frame_bytes >= 4096 && self.frame_bytes <= 1 << 24, "limits.frame_bytes", "from 4096 to 16777216")?;
        need(self.frame_bytes >= self.body_bytes * 2, "limits.frame_bytes", "at least twice limits.body_bytes")?;
        need(self.sends_per_s > 0, "limits.sends_per_s", "at least 1")?;
        need(self.sends_burst > 0, "limits.sends_burst", "at least 1")?;
        need((1..=65_536).contains(&self.window_events), "limits.window_events", "from 1 to 65536")?;
        need(self.window_bytes >= 4096, "limits.window_bytes", "at least 4096")?;
        need((1..=1024).contains(&self.in_flight), "limits.in_flight", "from 1 to 1024")?;
        need((1..=1000).contains(&self.page_events), "limits.page_events", "from 1 to 1000")?;
        need((1..=1000).contains(&self.watch_users), "limits.watch_users", "from 1 to 1000")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_consistent_and_errors_name_the_key() {
        assert_eq!(Limits::default().check(), Ok(()));
        let limits = Limits { frame_bytes: 5000, ..Limits::default() };
        assert_eq!(limits.check().unwrap_err().0, "limits.frame_bytes");
    }
}
