//! Refresh tokens and the family they come from, pure. A session's tokens are numbered 1, 2, 3, …; only the newest is good. A token is made of its
//! session, its number and a keyed hash of both, so none is stored, and the newest can be made again when the answer that brought it was lost.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::secret::{Keys, Purpose, Tag};
use crate::session::Sid;

/// How long a turn may be asked for again by the same idempotency key, if its token was never used, milliseconds. Long: whoever lost the answer may
/// be without a network for hours, and nobody but them knows the key.
pub const AGAIN_MS: u64 = 24 * 3600 * 1000;
/// First characters of every refresh token: tells it from an access token, for people and for scanners of leaked secrets.
const PREFIX: &str = "swr1.";
const BYTES: usize = 16 + 4 + 32;

/// Makes the token of a session with this number.
pub fn token(keys: &Keys, sid: Sid, number: u32) -> String {
    let mut bytes = [0; BYTES];
    bytes[..16].copy_from_slice(sid.bytes());
    bytes[16..20].copy_from_slice(&number.to_be_bytes());
    bytes[20..].copy_from_slice(&keys.tag(Purpose::Refresh, &[sid.bytes(), &number.to_be_bytes()]));
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
}

/// Session and number of a token that was made here. Its hash is compared in constant time.
pub fn read(keys: &Keys, token: &str) -> Option<(Sid, u32)> {
    let text = token.strip_prefix(PREFIX)?;
    let mut bytes = [0; BYTES];
    // of exactly this length: one text for one token
    let length = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
    let (sid, number): ([u8; 16], [u8; 4]) = (bytes[..16].try_into().ok()?, bytes[16..20].try_into().ok()?);
    let good = length == BYTES && keys.is_tag(Purpose::Refresh, &[&sid, &number], &bytes[20..]);
    good.then(|| (Sid::from_bytes(sid), u32::from_be_bytes(number)))
}

/// Where a session's tokens have come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Family {
    /// Number of the newest.
    pub number: u32,
    /// When it was made, milliseconds since 1970.
    pub turned_ms: u64,
    /// Keyed hash of the idempotency key it was asked for with.
    pub key: Option<Tag>,
    /// Until when it is good, milliseconds since 1970.
    pub until_ms: u64,
    /// Whether the session has ended.
    pub ended: bool,
}

/// What a token comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It was the newest, and is used up now. The family has changed and must be stored.
    Next,
    /// It was used by the same request, and the newest, its answer, was not used yet: that answer, again.
    Again,
    /// A used one came again. The session must end.
    Reuse,
    /// The session has ended or expired, or the number was never given out.
    Refused,
}

impl Family {
    /// A token of this family, with this number and idempotency key.
    pub fn present(&mut self, number: u32, key: Option<&Tag>, now_ms: u64, lifetime_ms: u64) -> Turn {
        if self.ended || now_ms >= self.until_ms || number > self.number || number == 0 {
            return Turn::Refused;
        }
        if number == self.number {
            let Some(next) = self.number.checked_add(1) else { return Turn::Refused };
            *self = Self { number: next, turned_ms: now_ms, key: key.copied(), until_ms: now_ms + lifetime_ms, ended: false };
            return Turn::Next;
        }
        let same = number + 1 == self.number && self.key.is_some() && self.key.as_ref() == key;
        if same && now_ms <= self.turned_ms + AGAIN_MS {
            return Turn::Again;
        }
        self.ended = true;
        Turn::Reuse
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY_MS: u64 = 24 * 3600 * 1000;

    #[test]
    fn a_token_is_read_by_the_secret_that_made_it() {
        let (keys, sid) = (Keys::new(&[7; 32], None), Sid::random());
        let good = token(&keys, sid, 3);
        assert_eq!(read(&keys, &good), Some((sid, 3)));
        assert_eq!(read(&Keys::new(&[8; 32], None), &good), None);
        assert_eq!(read(&Keys::new(&[8; 32], Some(&[7; 32])), &good), Some((sid, 3)), "an older secret is accepted");
        assert_eq!(good, token(&keys, sid, 3), "it can be made again");
    }

    #[test]
    fn every_other_text_is_none() {
        let keys = Keys::new(&[7; 32], None);
        let good = token(&keys, Sid::random(), 3);
        for at in 0..good.len() {
            for other in ['A', 'B', '-', '.', '='] {
                let mut bad = good.clone();
                bad.replace_range(at..=at, &other.to_string());
                assert!(bad == good || read(&keys, &bad).is_none(), "{bad}");
            }
        }
        let longer = format!("{good}A");
        for bad in ["", "swr1.", "x", "eyJhbGciOiJIUzI1NiJ9.e30.x", &good[..good.len() - 1], &longer, &"A".repeat(100_000)] {
            assert!(read(&keys, bad).is_none());
        }
    }

    #[test]
    fn an_answer_that_was_lost_is_given_again_for_a_day_to_who_asked() {
        let family = Family { number: 2, turned_ms: 0, key: Some([1; 32]), until_ms: 60 * DAY_MS, ended: false };
        let turn = |key: Option<&Tag>, now_ms| family.clone().present(1, key, now_ms, 60 * DAY_MS);
        assert_eq!(turn(Some(&[1; 32]), DAY_MS), Turn::Again);
        assert_eq!(turn(Some(&[1; 32]), DAY_MS + 1), Turn::Reuse);
        assert_eq!(turn(Some(&[2; 32]), 1), Turn::Reuse, "another request");
        assert_eq!(turn(None, 1), Turn::Reuse);
        let mut used = family.clone();
        assert_eq!(used.present(2, None, 1, 60 * DAY_MS), Turn::Next);
        assert_eq!(used.present(1, Some(&[1; 32]), 2, 60 * DAY_MS), Turn::Reuse, "its answer did arrive");
    }

    #[derive(Debug, Clone)]
    enum Deed {
        /// Present the token of this number (modulo what was given out, so used ones come again), with one of few keys or none.
        Present(u32, Option<u8>),
        Wait(u64),
        LogOut,
    }

    fn deeds() -> impl Strategy<Value = Vec<Deed>> {
        let deed = prop_oneof![
            6 => (0u32..6, prop::option::of(0u8..2)).prop_map(|(back, key)| Deed::Present(back, key)),
            3 => prop_oneof![Just(1_000u64), Just(59_000), Just(61_000), Just(DAY_MS - 60_000), Just(30 * DAY_MS), Just(61 * DAY_MS)].prop_map(Deed::Wait),
            1 => Just(Deed::LogOut),
        ];
        prop::collection::vec(deed, 1..60)
    }

    /// The same rules said another way: by a list of what every token has become.
    #[derive(Default)]
    struct Model {
        /// For each token: when it was used and with which key.
        used: Vec<Option<(u64, Option<u8>)>>,
        newest_until_ms: u64,
        dead: bool,
    }

    impl Model {
        fn present(&mut self, number: u32, key: Option<u8>, now_ms: u64) -> Turn {
            if self.dead || now_ms >= self.newest_until_ms || number as usize > self.used.len() || number == 0 {
                return Turn::Refused;
            }
            let at = number as usize - 1;
            match self.used[at] {
                None => {
                    self.used[at] = Some((now_ms, key));
                    self.used.push(None);
                    self.newest_until_ms = now_ms + 60 * DAY_MS;
                    Turn::Next
                }
                // the one after it is still unused: its answer may have been lost
                Some((when, Some(before))) if self.used[at + 1].is_none() && key == Some(before) && now_ms <= when + DAY_MS => {
                    Turn::Again
                }
                Some(_) => {
                    self.dead = true;
                    Turn::Reuse
                }
            }
        }
    }

    proptest! {
        #[test]
        fn rotation_agrees_with_its_model(deeds in deeds()) {
            let mut now_ms = DAY_MS;
            let mut family = Family { number: 1, turned_ms: now_ms, key: None, until_ms: now_ms + 60 * DAY_MS, ended: false };
            let mut model = Model { used: vec![None], newest_until_ms: family.until_ms, dead: false };
            for deed in deeds {
                match deed {
                    Deed::Wait(ms) => now_ms += ms,
                    Deed::LogOut => { family.ended = true; model.dead = true; }
                    Deed::Present(back, key) => {
                        let newest = model.used.len() as u32;
                        // one beyond the newest, the newest, and older ones
                        let number = (newest + 1).saturating_sub(back);
                        let tag = key.map(|key| [key; 32]);
                        let turn = family.present(number, tag.as_ref(), now_ms, 60 * DAY_MS);
                        prop_assert_eq!(turn, model.present(number, key, now_ms), "token {} of {}", number, newest);
                        prop_assert_eq!(family.ended, model.dead);
                        prop_assert_eq!(family.number as usize, model.used.len());
                        if turn == Turn::Reuse {
                            // nothing of the family is ever good again
                            for any in 0..=newest + 1 {
                                prop_assert_eq!(family.clone().present(any, tag.as_ref(), now_ms, DAY_MS), Turn::Refused);
                            }
                        }
                    }
                }
            }
        }
    }
}
