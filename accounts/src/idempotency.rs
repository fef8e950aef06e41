//! What was answered to an idempotency key, pure. Keys and bodies are kept as keyed hashes only.

use crate::secret::{Keys, Purpose, Tag};

/// How long an answer is kept, milliseconds: 24 hours.
pub const KEPT_MS: u64 = 24 * 3600 * 1000;
/// Answers kept for one caller.
pub const PER_CALLER_MAX: u32 = 1_000;
/// Answers kept in all.
pub const ANSWERS_MAX: u32 = 100_000;
/// Longest key, characters.
pub const KEY_CHARS_MAX: usize = 64;
/// Longest answer that is kept, bytes; a longer one is made anew.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Whether a text can be a key: 1 to 64 visible ASCII characters.
pub fn is_key(text: &str) -> bool {
    (1..=KEY_CHARS_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A request with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Who asks.
    pub caller: Tag,
    /// Who asks what with which key.
    pub key: Tag,
    /// The body.
    pub body: Tag,
}

impl Request {
    /// Of a caller (as text: a user and a device, or a number), a route, a key and a body.
    pub fn new(keys: &Keys, caller: &str, (route, key): (&str, &str), body: &[u8]) -> Self {
        let tag = |parts: &[&[u8]]| keys.tag(Purpose::Answer, parts);
        Self {
            caller: tag(&[b"caller", caller.as_bytes()]),
            key: tag(&[b"key", caller.as_bytes(), route.as_bytes(), key.as_bytes()]),
            body: tag(&[b"body", body]),
        }
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body; none: it holds tokens, is not kept, and whoever answered can make it again.
    pub body: Option<Vec<u8>>,
}

/// What is known of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Earlier {
    /// The key is new.
    Nothing,
    /// It was answered so.
    Same(Answer),
    /// The key came with another body.
    Other,
}

/// Compares a request with what was kept under its key.
pub fn judge(kept: Option<(Tag, u64, Answer)>, request: &Request, now_ms: u64) -> Earlier {
    match kept {
        Some((_, at_ms, _)) if at_ms + KEPT_MS <= now_ms => Earlier::Nothing,
        Some((body, _, answer)) if body == request.body => Earlier::Same(answer),
        Some(_) => Earlier::Other,
        None => Earlier::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_visible_ascii() {
        for good in ["a", "01932f6e-5c1e-7c3a-9d4e-1f2a3b4c5d6e", "!~", &"x".repeat(64)] {
            assert!(is_key(good));
        }
        for bad in ["", " ", "a b", "é", "a\n", &"x".repeat(65)] {
            assert!(!is_key(bad), "{bad:?}");
        }
    }

    #[test]
    fn the_same_key_of_another_caller_or_route_is_another() {
        let keys = Keys::new(&[7; 32], None);
        let one = Request::new(&keys, "42 phone", ("POST /a", "k"), b"{}");
        assert_eq!(Request::new(&keys, "42 phone", ("POST /a", "k"), b"{}"), one);
        assert_ne!(Request::new(&keys, "43 phone", ("POST /a", "k"), b"{}").key, one.key);
        assert_ne!(Request::new(&keys, "42 phone", ("POST /b", "k"), b"{}").key, one.key);
        assert_ne!(Request::new(&keys, "42 phone", ("POST /a", "l"), b"{}").key, one.key);
        let other = Request::new(&keys, "42 phone", ("POST /a", "k"), b"{ }");
        assert_eq!(other.key, one.key);
        let answer = Answer { status: 200, body: Some(b"x".to_vec()) };
        let kept = || Some((one.body, 1000, answer.clone()));
        assert_eq!(judge(kept(), &one, 1000), Earlier::Same(answer.clone()));
        assert_eq!(judge(kept(), &other, 1000), Earlier::Other);
        assert_eq!(judge(kept(), &other, 1000 + KEPT_MS), Earlier::Nothing);
        assert_eq!(judge(None, &one, 1000), Earlier::Nothing);
    }
}
