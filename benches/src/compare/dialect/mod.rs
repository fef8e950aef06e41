//! What each peer's clients say. A dialect is pure: bytes of messages in, bytes of messages and what they mean out.

use super::websocket::Opening;

pub(crate) mod centrifugo;
pub(crate) mod nats;
pub(crate) mod relay;
pub(crate) mod switchboard;
pub(crate) mod wukongim;
pub(crate) mod xmpp;

/// A body begins with this many characters: `#` and the time it was due, in nanoseconds after the generator began, in hexadecimal.
pub(crate) const STAMP: usize = 17;

/// How the clients of one peer speak.
pub(crate) trait Dialect: Send + Sync {
    /// How this client enters.
    fn opening(&self, client: usize) -> Opening;
    /// The frame type of its messages.
    fn opcode(&self) -> u8;
    /// The state of this client's conversation.
    fn session(&self, client: usize) -> Box<dyn Session>;
    /// A message, as the payload of one frame. `due` tells messages apart.
    fn send(&self, to: usize, due: u64, body: &str, out: &mut Vec<u8>);
    /// The payload of a second frame behind each message, if there is one.
    fn then(&self) -> Option<&'static [u8]> {
        None
    }
}

/// One client's conversation with its server.
pub(crate) trait Session: Send {
    /// What the client says before the server has said anything.
    fn hello(&mut self) -> Option<Vec<u8>>;
    /// Takes one message of the server in.
    ///
    /// # Errors
    /// When it is not what this protocol allows here, or an error of the server: the connection is given up.
    fn take(&mut self, payload: &[u8], seen: &mut Seen) -> anyhow::Result<()>;
}

/// What messages of the server meant.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Messages that arrived: when they were due.
    pub(crate) delivered: Vec<u64>,
    /// Messages of this client that the server has confirmed.
    pub(crate) confirmed: u64,
    /// What is to be answered.
    pub(crate) replies: Vec<Vec<u8>>,
    /// The client is in and may be sent to.
    pub(crate) ready: bool,
}

/// A body of `size` bytes.
pub(crate) fn body(due: u64, size: usize) -> String {
    format!("#{due:016x}{:x<fill$}", "", fill = size.saturating_sub(STAMP))
}

/// The time in a body.
pub(crate) fn due(body: &[u8]) -> Option<u64> {
    let digits = body.strip_prefix(b"#")?.get(..STAMP - 1)?;
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Where `what` ends in `text`, the first time it is there.
pub(crate) fn after(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what).map(|at| at + what.len())
}

/// The digits that follow `what`.
pub(crate) fn number(text: &[u8], what: &[u8]) -> Option<u64> {
    let digits = &text[after(text, what)?..];
    let end = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What one text message of the server means.
    pub(super) fn take(session: &mut dyn Session, payload: &str) -> Seen {
        let mut seen = Seen::default();
        session.take(payload.as_bytes(), &mut seen).unwrap();
        seen
    }

    #[test]
    fn a_body_carries_when_it_was_due() {
        for time in [0, 1, 123_456_789, u64::MAX] {
            let body = body(time, 200);
            assert_eq!((body.len(), due(body.as_bytes())), (200, Some(time)));
        }
        assert_eq!(due(b"#00"), None);
        assert_eq!(due(b"00000000000000000000"), None);
    }

    #[test]
    fn numbers_are_found() {
        assert_eq!(number(br#"{"type":"event","seq":18,"x":1}"#, br#""seq":"#), Some(18));
        assert_eq!(number(b"seq:x", b"seq:"), None);
    }
}
