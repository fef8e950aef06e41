//! Phone numbers: E.164 (ITU-T), with the plus, without anything between the digits. There is no default region: `+49…` is the same everywhere.

use std::fmt;
use std::str::FromStr;

/// Digits of the longest number of E.164.
const DIGITS_MAX: usize = 15;
/// Digits of the shortest that is taken: country code and subscriber.
const DIGITS_MIN: usize = 7;

/// A number. It has no `Display`, and `Debug` hides it: it is never in a log by accident.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Phone(Box<str>);

/// Not a number of E.164.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a phone number is + and 7 to 15 digits, the first of them not 0, such as +4915112345678")]
pub struct NotAPhone;

impl Phone {
    /// The number, for storing and for sending it a code.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Phone {
    type Err = NotAPhone;

    fn from_str(text: &str) -> Result<Self, NotAPhone> {
        let digits = text.strip_prefix('+').ok_or(NotAPhone)?;
        let good = (DIGITS_MIN..=DIGITS_MAX).contains(&digits.len())
            && digits.bytes().all(|byte| byte.is_ascii_digit())
            && !digits.starts_with('0');
        good.then(|| Self(text.into())).ok_or(NotAPhone)
    }
}

impl fmt::Debug for Phone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Phone(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_for_each_number() {
        for good in ["+4915112345678", "+1555010", "+999999999999999"] {
            assert_eq!(good.parse::<Phone>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            "+",
            "4915112345678",
            "004915112345678",
            "+0123456789",
            "+49 151 12345678",
            "+49-151-1234567",
            "+49151123456x",
            "+123456",
            "+1234567890123456",
            "+٤٩١٥١١٢٣٤٥٦",
            " +4915112345678",
            "+4915112345678\n",
            "++4915112345678",
        ] {
            assert_eq!(bad.parse::<Phone>(), Err(NotAPhone), "{bad:?}");
        }
    }

    #[test]
    fn it_is_not_in_a_debug_line() {
        assert!(!format!("{:?}", "+4915112345678".parse::<Phone>().unwrap()).contains("4915"));
    }
}
