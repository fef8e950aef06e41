//! When whoever is refused for the state of the server may come again. What was refused comes again, so under overload a fixed time makes refusing the server's main work, and then
//! less and less is accepted. So the time grows while more is refused than accepted, and shrinks when that is over; each refusal gets one of its own
//! around it, so that they do not come back together.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use protocol::ErrorCode;

/// The time when nothing presses, milliseconds.
const LEAST_MS: u32 = 500;
/// And at the most.
const MOST_MS: u32 = 8_000;
/// So many refusals a second are no pressure, whatever is accepted.
const NO_PRESSURE: u64 = 200;

/// How hard a node is pressed.
#[derive(Debug)]
pub struct Pressure {
    refused: AtomicU64,
    accepted: AtomicU64,
    wait_ms: AtomicU32,
    /// Seconds until the time may grow again: whoever was told the last one has come back by then.
    settling_s: AtomicU32,
}

impl Default for Pressure {
    fn default() -> Self {
        Self {
            refused: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            wait_ms: AtomicU32::new(LEAST_MS),
            settling_s: AtomicU32::new(0),
        }
    }
}

impl Pressure {
    /// A send was accepted.
    pub fn accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    /// A second is over: more refusals than sends accepted double the time, fewer than a quarter halve it.
    pub fn second(&self) {
        let (refused, accepted) = (self.refused.swap(0, Ordering::Relaxed), self.accepted.swap(0, Ordering::Relaxed));
        let (wait, settling) = (self.wait_ms.load(Ordering::Relaxed), self.settling_s.load(Ordering::Relaxed));
        let (next, settling) = if refused > accepted.max(NO_PRESSURE) && settling == 0 {
            let longer = wait.saturating_mul(2).min(MOST_MS);
            (longer, longer.div_ceil(1000))
        } else if refused <= accepted.max(NO_PRESSURE) / 4 {
            ((wait / 2).max(LEAST_MS), 0)
        } else {
            (wait, settling.saturating_sub(1))
        };
        self.wait_ms.store(next, Ordering::Relaxed);
        self.settling_s.store(settling, Ordering::Relaxed);
    }

    /// A send is refused: when it may come again, milliseconds; none: never. Only what the server could not take counts: one client that sends
    /// too much, or what it was told to wait with, makes nobody else wait.
    pub fn refused(&self, code: ErrorCode) -> Option<u64> {
        let least: u32 = match code {
            ErrorCode::Busy => return Some(200),
            ErrorCode::Fenced => 100,
            ErrorCode::Unavailable => LEAST_MS,
            ErrorCode::OutcomeUnknown => 1_000,
            _ => return None,
        };
        if code != ErrorCode::Fenced {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        let wait = self.wait_ms.load(Ordering::Relaxed);
        if wait <= LEAST_MS {
            return Some(least.into());
        }
        Some(rand::random_range(wait / 2..wait / 2 * 3).max(least).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(pressure: &Pressure, refused: u32, accepted: u32) {
        (0..refused).for_each(|_| assert!(pressure.refused(ErrorCode::Unavailable).is_some()));
        (0..accepted).for_each(|_| pressure.accepted());
        pressure.second();
    }

    #[test]
    fn without_pressure_the_times_are_fixed() {
        let pressure = Pressure::default();
        second(&pressure, 190, 0);
        assert_eq!(pressure.refused(ErrorCode::Unavailable), Some(500));
        assert_eq!(pressure.refused(ErrorCode::Fenced), Some(100));
        assert_eq!(pressure.refused(ErrorCode::OutcomeUnknown), Some(1_000));
        assert_eq!(pressure.refused(ErrorCode::TooLarge), None);
    }

    #[test]
    fn it_grows_only_when_whoever_was_told_the_last_time_has_come_back() {
        let pressure = Pressure::default();
        let waits: Vec<_> = (0..6)
            .map(|_| {
                second(&pressure, 3_000, 1_000);
                pressure.wait_ms.load(Ordering::Relaxed)
            })
            .collect();
        assert_eq!(waits, [1_000, 1_000, 2_000, 2_000, 2_000, 4_000]);
    }

    #[test]
    fn what_one_client_is_refused_for_makes_nobody_wait() {
        let pressure = Pressure::default();
        for _ in 0..10 {
            (0..5_000).for_each(|_| assert!(pressure.refused(ErrorCode::Fenced).is_some()));
            (0..5_000).for_each(|_| assert!(pressure.refused(ErrorCode::Busy).is_some()));
            pressure.second();
        }
        assert_eq!(pressure.refused(ErrorCode::OutcomeUnknown), Some(1_000));
    }

    #[test]
    fn the_time_grows_to_a_bound_differs_and_shrinks_when_it_is_over() {
        let pressure = Pressure::default();
        (0..20).for_each(|_| second(&pressure, 3_000, 1_000));
        let times: Vec<_> = (0..100).filter_map(|_| pressure.refused(ErrorCode::Fenced)).collect();
        assert!(times.iter().all(|ms| (4_000..12_000).contains(ms)), "{times:?}");
        assert!(times.iter().max() > times.iter().min().map(|least| least + 2_000).as_ref(), "{times:?}");
        second(&pressure, 500, 1_000);
        assert_eq!(pressure.wait_ms.load(Ordering::Relaxed), MOST_MS, "neither one nor the other");
        (0..4).for_each(|_| second(&pressure, 100, 1_000));
        assert_eq!(pressure.refused(ErrorCode::Unavailable), Some(500));
    }

    /// Sends that are refused come again when they are told to. A server that can refuse at little cost goes on accepting what it can.
    #[test]
    fn refusals_settle_at_about_what_is_accepted() {
        let (pressure, mut waiting) = (Pressure::default(), vec![0_u64; 20_000]);
        let (mut refused_in_second, capacity) = (Vec::new(), 1_000);
        for second in 0..20_u64 {
            let mut refused = 0;
            for ms in second * 1000..(second + 1) * 1000 {
                let mut room = capacity / 1000;
                for at in waiting.iter_mut().filter(|at| **at <= ms) {
                    if room > 0 {
                        room -= 1;
                        pressure.accepted();
                        *at = ms + 1; // and sends another one
                    } else {
                        refused += 1;
                        *at = ms + pressure.refused(ErrorCode::Unavailable).unwrap_or_default();
                    }
                }
            }
            pressure.second();
            refused_in_second.push(refused);
        }
        assert!(
            refused_in_second[0] > 30_000 && refused_in_second[15..].iter().all(|refused| *refused < 4_000),
            "{refused_in_second:?}"
        );
    }
}
