//! One-time codes, pure: six digits, five minutes, five tries, of which only a keyed hash is kept. Time comes as an argument.

use rand::RngExt as _;

use crate::config::Config;
use crate::secret::{Keys, Purpose, Tag};
use crate::session::Sid;

/// Digits of a code.
pub const DIGITS: usize = 6;
/// How long a code is good, milliseconds.
pub const LIFETIME_MS: u64 = 5 * 60 * 1000;
/// Tries of one code. Every comparison counts, also the right one.
pub const TRIES_MAX: u8 = 5;
/// How long the answer to a right code may be asked for again by the same idempotency key, milliseconds.
pub const AGAIN_MS: u64 = 60 * 1000;
const HOUR_MS: u64 = 3600 * 1000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// A code. `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Code([u8; DIGITS]);

impl Code {
    /// A random one.
    pub fn random() -> Self {
        let mut rng = rand::rng();
        Self(std::array::from_fn(|_| b'0' + rng.random_range(0..10u8)))
    }

    /// Six ASCII digits, or nothing.
    pub fn parse(text: &str) -> Option<Self> {
        let digits: [u8; DIGITS] = text.as_bytes().try_into().ok()?;
        digits.iter().all(u8::is_ascii_digit).then_some(Self(digits))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl std::fmt::Debug for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Code(hidden)")
    }
}

/// What became of a right code: enough to give the same answer again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// When, milliseconds since 1970.
    pub at_ms: u64,
    /// The session it began.
    pub sid: Sid,
    /// Whether it made the account.
    pub new: bool,
    /// Keyed hash of the idempotency key it came with.
    pub key: Option<Tag>,
}

/// The newest code of a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// Random, so that equal codes have unequal hashes.
    pub salt: [u8; 16],
    /// Keyed hash of the code.
    pub hash: Tag,
    /// When it was made, milliseconds since 1970.
    pub made_ms: u64,
    /// Tries so far.
    pub tries: u8,
    /// Set by the right code.
    pub used: Option<Used>,
}

/// What a try comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is the code. The caller sets [`Challenge::used`].
    Right,
    /// It is not, and a try is gone. The challenge must be stored.
    Wrong,
    /// The code is expired, used, or tried too often. Nothing has changed.
    Closed,
    /// The code was right before, and this is the same request again.
    Again(Used),
}

impl Challenge {
    /// A challenge for a code made now.
    pub fn new(keys: &Keys, number: &Tag, code: &Code, now_ms: u64) -> Self {
        let salt: [u8; 16] = rand::random();
        let hash = keys.tag(Purpose::Code, &[number, &salt, code.as_str().as_bytes()]);
        Self { salt, hash, made_ms: now_ms, tries: 0, used: None }
    }

    /// One try. It counts before it is compared.
    pub fn attempt(&mut self, keys: &Keys, number: &Tag, (code, key): (&Code, Option<&Tag>), now_ms: u64) -> Verdict {
        // a clock that was set back by more than a code's life makes no code live longer
        let alive = now_ms < self.made_ms + LIFETIME_MS && self.made_ms <= now_ms + LIFETIME_MS;
        if !alive {
            return Verdict::Closed;
        }
        let matches = |this: &Self| keys.is_tag(Purpose::Code, &[number, &this.salt, code.as_str().as_bytes()], &this.hash);
        if let Some(used) = self.used {
            // who does not know the key learns nothing of the code
            let same = used.key.is_some() && used.key.as_ref() == key && now_ms <= used.at_ms + AGAIN_MS;
            return if same && matches(self) { Verdict::Again(used) } else { Verdict::Closed };
        }
        if self.tries >= TRIES_MAX {
            return Verdict::Closed;
        }
        self.tries += 1;
        if matches(self) { Verdict::Right } else { Verdict::Wrong }
    }
}

/// When codes of one number were asked for, oldest first: the last day's, at most [`Config::codes_per_day`].
pub type Asked = Vec<u64>;

/// Whether a number may ask for one more code. Forgets what is older than a day.
///
/// # Errors
/// Milliseconds after which it may.
pub fn may_ask(asked: &mut Asked, config: &Config, now_ms: u64) -> Result<(), u64> {
    // times of a clock that was ahead count as now
    asked.iter_mut().for_each(|at| *at = (*at).min(now_ms));
    asked.retain(|at| at + DAY_MS > now_ms);
    let wait = wait_ms(asked, config, now_ms);
    if wait > 0 { Err(wait) } else { Ok(()) }
}

/// Milliseconds until a number may ask again.
pub fn wait_ms(asked: &[u64], config: &Config, now_ms: u64) -> u64 {
    // the n-th newest must be older than the window of n
    let window = |count: u32, length_ms: u64| {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let blocking = asked.len().checked_sub(count).and_then(|at| asked.get(at));
        blocking.map_or(0, |at| (at + length_ms).saturating_sub(now_ms))
    };
    let pause = window(1, config.code_pause_s * 1000);
    pause.max(window(config.codes_per_hour, HOUR_MS)).max(window(config.codes_per_day, DAY_MS))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NUMBER: Tag = [9; 32];

    fn keys() -> Keys {
        Keys::new(&[7; 32], None)
    }

    fn code(text: &str) -> Code {
        Code::parse(text).unwrap()
    }

    fn challenge(now_ms: u64) -> Challenge {
        Challenge::new(&keys(), &NUMBER, &code("123456"), now_ms)
    }

    fn attempt(challenge: &mut Challenge, text: &str, now_ms: u64) -> Verdict {
        challenge.attempt(&keys(), &NUMBER, (&code(text), None), now_ms)
    }

    #[test]
    fn a_code_is_six_digits() {
        for bad in ["", "12345", "1234567", "12345a", "１２３", "+12345", "12 456"] {
            assert!(Code::parse(bad).is_none(), "{bad}");
        }
        assert!(Code::parse(Code::random().as_str()).is_some());
        assert!(!format!("{:?}", code("123456")).contains('1'));
    }

    #[test]
    fn five_tries_and_then_not_even_the_right_one() {
        let mut at_five = challenge(1000);
        for _ in 0..4 {
            assert_eq!(attempt(&mut at_five, "000000", 1000), Verdict::Wrong);
        }
        let mut locked = at_five.clone();
        assert_eq!(attempt(&mut at_five, "123456", 1000), Verdict::Right);
        assert_eq!(attempt(&mut locked, "000000", 1000), Verdict::Wrong);
        assert_eq!(attempt(&mut locked, "123456", 1000), Verdict::Closed);
        assert_eq!(locked.tries, TRIES_MAX);
    }

    #[test]
    fn five_minutes() {
        assert_eq!(attempt(&mut challenge(1000), "123456", 1000 + LIFETIME_MS - 1), Verdict::Right);
        assert_eq!(attempt(&mut challenge(1000), "123456", 1000 + LIFETIME_MS), Verdict::Closed);
        let mut made_by_a_clock_ahead = challenge(10 * LIFETIME_MS);
        assert_eq!(attempt(&mut made_by_a_clock_ahead, "123456", 0), Verdict::Closed);
    }

    #[test]
    fn a_code_is_of_its_number_and_its_secret() {
        let mut one = challenge(0);
        assert_eq!(one.attempt(&keys(), &[8; 32], (&code("123456"), None), 0), Verdict::Wrong);
        assert_eq!(one.attempt(&Keys::new(&[8; 32], None), &NUMBER, (&code("123456"), None), 0), Verdict::Wrong);
        assert_eq!(one.attempt(&keys(), &NUMBER, (&code("123456"), None), 0), Verdict::Right);
    }

    #[test]
    fn a_used_code_answers_only_the_same_request() {
        let mut used = challenge(0);
        assert_eq!(attempt(&mut used, "123456", 0), Verdict::Right);
        let how = Used { at_ms: 10, sid: Sid::random(), new: true, key: Some([1; 32]) };
        used.used = Some(how);
        let mut again = |text: &str, key: Option<&Tag>, at| used.attempt(&keys(), &NUMBER, (&code(text), key), at);
        assert_eq!(again("123456", Some(&[1; 32]), 10 + AGAIN_MS), Verdict::Again(how));
        assert_eq!(again("123456", Some(&[1; 32]), 11 + AGAIN_MS), Verdict::Closed);
        assert_eq!(again("123456", Some(&[2; 32]), 20), Verdict::Closed);
        assert_eq!(again("123456", None, 20), Verdict::Closed);
        assert_eq!(again("123457", Some(&[1; 32]), 20), Verdict::Closed);
        used.used = Some(Used { key: None, ..how });
        assert_eq!(attempt(&mut used, "123456", 20), Verdict::Closed, "without a key there is no repeat");
    }

    proptest! {
        /// However asks are spread, no window ever holds more than it may, and who waits as long as told is let through.
        #[test]
        fn windows_hold(gaps in prop::collection::vec(0u64..4 * 3600 * 1000, 1..60)) {
            let config = Config { codes_per_hour: 3, codes_per_day: 7, code_pause_s: 60, ..Config::default() };
            let (mut asked, mut granted, mut now_ms) = (Asked::new(), Vec::new(), 5 * DAY_MS);
            for gap in gaps {
                now_ms += gap;
                match may_ask(&mut asked, &config, now_ms) {
                    Ok(()) => { asked.push(now_ms); granted.push(now_ms) }
                    Err(wait) => {
                        prop_assert!(may_ask(&mut asked.clone(), &config, now_ms + wait - 1).is_err());
                        prop_assert!(may_ask(&mut asked.clone(), &config, now_ms + wait).is_ok());
                    }
                }
                for (window, most) in [(60_000, 1), (HOUR_MS, 3), (DAY_MS, 7)] {
                    prop_assert!(granted.iter().filter(|at| *at + window > now_ms).count() <= most);
                }
                prop_assert!(asked.len() <= 7);
            }
        }
    }
}
