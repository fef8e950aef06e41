//! Keys for everything that is hashed here, made of the deployment's signing secret by labels. No second secret is to be kept.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

type HmacSha256 = Hmac<Sha256>;

/// A keyed hash.
pub type Tag = [u8; 32];

/// What a key is for. The labels never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// One-time codes: of a million values, so an unkeyed hash would hide nothing.
    Code,
    /// Numbers that have asked for a code, which may never have had an account.
    Number,
    /// Refresh tokens.
    Refresh,
    /// Idempotency keys, and what was asked with them.
    Answer,
}

impl Purpose {
    const ALL: [Self; 4] = [Self::Code, Self::Number, Self::Refresh, Self::Answer];

    const fn label(self) -> &'static [u8] {
        match self {
            Self::Code => b"switchboard accounts v1: one-time codes",
            Self::Number => b"switchboard accounts v1: numbers",
            Self::Refresh => b"switchboard accounts v1: refresh tokens",
            Self::Answer => b"switchboard accounts v1: idempotency keys",
        }
    }
}

/// The keys of one secret.
struct Set([HmacSha256; 4]);

impl Set {
    fn new(secret: &[u8]) -> Self {
        // one block of HKDF-Expand (RFC 5869) with the label as its information, over a secret that is random already
        Self(Purpose::ALL.map(|purpose| {
            let derived = keyed(secret).chain_update(purpose.label()).chain_update([1]).finalize().into_bytes();
            keyed(&derived)
        }))
    }

    fn over(&self, purpose: Purpose, parts: &[&[u8]]) -> HmacSha256 {
        let mut mac = self.0[purpose as usize].clone();
        for part in parts {
            // with its length, so that two lists of parts never are one text
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac
    }
}

fn keyed(key: &[u8]) -> HmacSha256 {
    HmacSha256::new_from_slice(key).expect("HMAC takes a key of any length")
}

/// The keys in force, and those of the secret before it, if one is still accepted.
pub struct Keys {
    current: Set,
    previous: Option<Set>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}

impl Keys {
    /// Of the signing secret, and of an older one that is accepted and no longer used.
    pub fn new(secret: &[u8], previous: Option<&[u8]>) -> Self {
        Self { current: Set::new(secret), previous: previous.map(Set::new) }
    }

    /// The keyed hash of some parts.
    pub fn tag(&self, purpose: Purpose, parts: &[&[u8]]) -> Tag {
        self.current.over(purpose, parts).finalize().into_bytes().into()
    }

    /// Whether this is their keyed hash, by either secret. Compared in constant time.
    pub fn is_tag(&self, purpose: Purpose, parts: &[&[u8]], tag: &[u8]) -> bool {
        let by = |set: &Set| set.over(purpose, parts).verify_slice(tag).is_ok();
        by(&self.current) || self.previous.as_ref().is_some_and(by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_by_secret_by_purpose_and_by_where_a_part_ends() {
        let (one, other) = (Keys::new(b"one", None), Keys::new(b"other", Some(b"one")));
        let tag = one.tag(Purpose::Code, &[b"ab", b"c"]);
        assert!(one.is_tag(Purpose::Code, &[b"ab", b"c"], &tag));
        assert!(!one.is_tag(Purpose::Code, &[b"a", b"bc"], &tag));
        assert!(!one.is_tag(Purpose::Refresh, &[b"ab", b"c"], &tag));
        assert!(!one.is_tag(Purpose::Code, &[b"ab", b"c"], &tag[..31]));
        assert!(other.is_tag(Purpose::Code, &[b"ab", b"c"], &tag), "the older secret is accepted");
        assert_ne!(other.tag(Purpose::Code, &[b"ab", b"c"]), tag, "and not used");
        assert!(!Keys::new(b"other", None).is_tag(Purpose::Code, &[b"ab", b"c"], &tag));
    }
}
