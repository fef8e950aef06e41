//! What messages say and how long they are: drawn from their number, so that whoever gets one can tell whether it is it.

use std::time::Duration;

use uuid::{Builder, Uuid};

use crate::scenario::Body;

/// Text to fill bodies with, over and over.
const FILLER: &str =
    "so we meet at the station at nine, bring the blue folder and the keys, and tell me when the train is late; ";
/// The variant of a UUID lies over the two highest bits of the stream's number.
const STREAM_BITS: u32 = 0x3fff_ffff;

/// Makes and knows the messages of one run.
#[derive(Debug, Clone)]
pub struct Bodies {
    run: u32,
    /// The time of the ids, as milliseconds since 1970, when the run began.
    began_ms: u64,
    sizes: Body,
}

impl Bodies {
    /// The messages of the run `run` that began at `began` since 1970.
    #[must_use]
    pub fn new(run: u32, began: Duration, sizes: Body) -> Self {
        Self { run, began_ms: u64::try_from(began.as_millis()).unwrap_or_default(), sizes }
    }

    /// The id of message `number` of `stream`, due `due_us` after the beginning: a UUID of version 7 that carries its
    /// numbers, so that an answer needs no look-up.
    #[must_use]
    pub fn id(&self, stream: u32, number: u32, due_us: u64) -> Uuid {
        let mut tail = [0; 10];
        let (run, rest) = tail.split_at_mut(2);
        run.copy_from_slice(&self.run.to_be_bytes()[2..]);
        let (first, second) = rest.split_at_mut(4);
        first.copy_from_slice(&stream.to_be_bytes());
        second.copy_from_slice(&number.to_be_bytes());
        Builder::from_unix_timestamp_millis(self.began_ms + due_us / 1000, &tail).into_uuid()
    }

    /// The text of message `number` of `stream`.
    #[must_use]
    pub fn text(&self, stream: u32, number: u32) -> String {
        let mut text = format!("{:08x} {stream} {number} ", self.run);
        let draw = mix(u64::from(self.run) << 32 ^ u64::from(stream) << 20 ^ u64::from(number));
        let length = self.length(draw).max(text.len());
        let start = usize::try_from(draw % FILLER.len() as u64).unwrap_or_default();
        text.push_str(FILLER.get(start..).unwrap_or_default());
        while text.len() < length {
            text.push_str(FILLER);
        }
        text.truncate(length);
        text
    }

    /// Whether this is the text of that message.
    #[must_use]
    pub fn is_text(&self, text: &str, stream: u32, number: u32) -> bool {
        self.text(stream, number) == text
    }

    /// Whether it is a message of another run: somebody else's, or one that was still on its way.
    #[must_use]
    pub fn is_foreign(&self, text: &str) -> bool {
        let mut words = text.split(' ');
        let run = words.next().filter(|word| word.len() == 8).and_then(|word| u32::from_str_radix(word, 16).ok());
        let numbers = words.take(2).filter(|word| word.parse::<u32>().is_ok()).count();
        run.is_some_and(|run| run != self.run) && numbers == 2
    }

    /// Log-normal by Box and Muller, from the bits of one draw.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "lengths below 2^14"
    )]
    fn length(&self, draw: u64) -> usize {
        let Body { median, spread, least, most } = self.sizes;
        let first = ((draw >> 32) as f64 + 1.0) / (f64::from(u32::MAX) + 1.0);
        let second = (draw & 0xffff_ffff) as f64 / f64::from(u32::MAX);
        let normal = (-2.0 * first.ln()).sqrt() * (second * std::f64::consts::TAU).cos();
        let length = median as f64 * (spread * normal).exp();
        (length as usize).clamp(least, most)
    }
}

/// The stream and the number in an id.
#[must_use]
pub fn numbers_of(id: Uuid) -> (u32, u32) {
    let (_, low) = id.as_u64_pair();
    let [a, b, c, d, e, f, g, h] = low.to_be_bytes();
    (u32::from_be_bytes([a, b, c, d]) & STREAM_BITS, u32::from_be_bytes([e, f, g, h]))
}

/// Splitmix64: numbers that look random, from numbers that do not.
#[must_use]
pub fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bodies(sizes: Body) -> Bodies {
        Bodies::new(0xabcd_1234, Duration::from_secs(1_700_000_000), sizes)
    }

    #[test]
    fn an_id_carries_its_numbers_and_is_version_7() {
        let id = bodies(Body::default()).id(123_456, u32::MAX, 5_000_000);
        assert_eq!((id.get_version_num(), numbers_of(id)), (7, (123_456, u32::MAX)));
        assert_eq!(id.get_timestamp().unwrap().to_unix().0, 1_700_000_005);
    }

    #[test]
    fn a_text_is_known_again_and_no_other() {
        let bodies = bodies(Body::default());
        let text = bodies.text(7, 9);
        assert!(bodies.is_text(&text, 7, 9) && !bodies.is_text(&text, 7, 10) && !bodies.is_text(&text[1..], 7, 9));
        assert!(!bodies.is_foreign(&text));
        assert!(bodies.is_foreign("00000001 7 9 so we") && !bodies.is_foreign("hello there you"));
    }

    #[test]
    fn lengths_are_distributed_as_asked() {
        let bodies_of = |spread| bodies(Body { median: 200, spread, least: 40, most: 4096 });
        assert!((0..100).all(|n| bodies_of(0.0).text(1, n).len() == 200));
        let mut lengths: Vec<_> = (0..4000).map(|n| bodies_of(1.0).text(1, n).len()).collect();
        lengths.sort_unstable();
        assert!((185..215).contains(&lengths[2000]), "median {}", lengths[2000]);
        // one standard deviation of the logarithm above: e times the median
        assert!((480..610).contains(&lengths[3365]), "84 % {}", lengths[3365]);
        assert!(lengths[0] >= 40 && lengths[3999] <= 4096);
    }
}
