//! Times and sizes as people write them: `30s`, `500ms`, `16KiB`.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A length of time, written `500ms`, `30s`, `20m` or `1h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Span(pub Duration);

impl Span {
    /// So many seconds.
    #[must_use]
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// So many milliseconds.
    #[must_use]
    pub const fn millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        if millis.is_multiple_of(1000) { write!(out, "{}s", millis / 1000) } else { write!(out, "{millis}ms") }
    }
}

impl std::str::FromStr for Span {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        duration(text).map(Self)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = String::deserialize(input)?;
        text.parse().map_err(|why: anyhow::Error| serde::de::Error::custom(format!("{why:#}")))
    }
}

/// Reads `30s`, `500ms`, `2m` or `1h`.
///
/// # Errors
/// When it is none of these.
pub fn duration(text: &str) -> Result<Duration> {
    let (number, unit) = split(text).with_context(|| format!("{text:?} is no duration: write 500ms, 30s, 2m or 1h"))?;
    let seconds = match unit {
        "us" | "µs" => number / 1e6,
        "ms" => number / 1e3,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        "" => bail!("{text:?} has no unit of time: write {text}ms, {text}s or {text}m"),
        unit => bail!("{unit:?} is no unit of time: ms, s, m or h"),
    };
    Duration::try_from_secs_f64(seconds).with_context(|| format!("{text:?} is no duration"))
}

/// Reads `100`, `64KiB`, `1.5MiB` or `1GiB` into bytes.
///
/// # Errors
/// When it is none of these.
pub fn bytes(text: &str) -> Result<f64> {
    let (number, unit) = split(text).with_context(|| format!("{text:?} is no size: write 64KiB or 1MiB"))?;
    Ok(match unit {
        "" | "B" => number,
        "KiB" => number * 1024.0,
        "MiB" => number * 1024.0 * 1024.0,
        "GiB" => number * 1024.0 * 1024.0 * 1024.0,
        unit => bail!("{unit:?} is no unit of size: B, KiB, MiB or GiB"),
    })
}

fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let digits = text.trim_end_matches(|letter: char| letter.is_alphabetic());
    Some((digits.trim_end().parse().ok()?, text.get(digits.len()..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        assert_eq!(duration("30s").unwrap(), Duration::from_secs(30));
        assert_eq!(duration("250ms").unwrap(), Duration::from_millis(250));
        assert_eq!(duration("1.5m").unwrap(), Duration::from_secs(90));
        assert!(duration("30").is_err() && duration("x").is_err() && duration("-1s").is_err());
        assert_eq!(Span::millis(1500).to_string(), "1500ms");
        assert_eq!("20m".parse::<Span>().unwrap().to_string(), "1200s");
    }

    #[test]
    fn sizes_are_read() {
        assert!((bytes("1.5KiB").unwrap() - 1536.0).abs() < 1e-9);
        assert!(bytes("3 parsecs").is_err());
    }
}
