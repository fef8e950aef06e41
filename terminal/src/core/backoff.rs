//! Full jitter: a random time between nothing and a bound that doubles.

/// First bound, milliseconds.
const FIRST_MS: u64 = 500;
/// Last bound, milliseconds.
pub(crate) const LONGEST_MS: u64 = 30_000;

#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Backoff {
    tries: u32,
}

impl Backoff {
    /// How long to wait this time, milliseconds. `random` is from 0 to below 1.
    pub(crate) fn next(&mut self, random: f64) -> u64 {
        let bound = FIRST_MS.saturating_mul(1 << self.tries.min(10)).min(LONGEST_MS);
        self.tries = self.tries.saturating_add(1);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "below 30000")]
        let wait = (bound as f64 * random) as u64;
        wait.min(bound)
    }

    /// The next waits are from the longest bound.
    pub(crate) fn longest(&mut self) {
        self.tries = 10;
    }

    pub(crate) fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_up_to_its_last() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..9).map(|_| backoff.next(0.999_999)).collect();
        assert_eq!(waits, [499, 999, 1999, 3999, 7999, 15_999, 29_999, 29_999, 29_999]);
        assert_eq!(backoff.next(0.0), 0, "full jitter begins at nothing");
        backoff.reset();
        assert!(backoff.next(0.5) <= 250);
    }
}
