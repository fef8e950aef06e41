//! What one stretch of load saw: how much of it there was, what was done to the cluster and when, and how long each thing was felt.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use loadtest::check::Verdict;
use loadtest::record::{Entry, What};
use uuid::Uuid;

/// A message that takes longer from its send to its last device is late.
const LATE: Duration = Duration::from_millis(500);
/// The device that reads everything back at the end: it is late by its nature.
const AUDIT: &str = "audit";

/// One thing that was done to the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// In words.
    pub(crate) what: String,
    /// When, on the recording's clock.
    pub(crate) at: Duration,
    /// How long after it the last message that it made late came. `None`: none was late.
    pub(crate) felt: Option<Duration>,
}

/// What a stretch of load saw. It is clean: whatever is not never becomes one of these.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Sends a second that were intended.
    pub(crate) rate: u32,
    /// How long it lasted.
    pub(crate) took: Duration,
    /// Sends decided.
    pub(crate) sends: usize,
    /// Sends accepted.
    pub(crate) accepted: usize,
    /// Events shown.
    pub(crate) shown: usize,
    /// Connections that broke with sends in flight.
    pub(crate) cut: usize,
    /// Connections that broke or were closed.
    pub(crate) closed: usize,
    /// From the end of a connection to the next attach of its device: 99 % were within this. `None`: nobody was cut off.
    pub(crate) back: Option<Duration>,
    /// The longest time from a send to its event at another device.
    pub(crate) slowest: Duration,
    /// What was done.
    pub(crate) faults: Vec<Fault>,
}

impl Seen {
    /// Of a recording that was judged clean.
    pub(crate) fn of(
        entries: &[Entry],
        verdict: &Verdict,
        (rate, took): (u32, Duration),
        faults: Vec<(Duration, String)>,
    ) -> Self {
        let messages = messages(entries);
        let faults = felt(&messages, faults);
        let closes = |entry: &&Entry| matches!(entry.what, What::Close { code, .. } if code != Some(1000));
        Self {
            rate,
            took,
            sends: verdict.sends,
            accepted: verdict.accepted,
            shown: verdict.delivered,
            cut: entries.iter().filter(|entry| matches!(entry.what, What::Close { in_flight: 1.., .. })).count(),
            closed: entries.iter().filter(closes).count(),
            back: back(entries),
            slowest: messages.iter().map(|(sent, shown)| shown.saturating_sub(*sent)).max().unwrap_or_default(),
            faults,
        }
    }

    /// Each thing that was done was felt by somebody.
    ///
    /// # Errors
    /// When one was not: then it has not bitten.
    pub(crate) fn all_felt(self) -> anyhow::Result<Self> {
        let not = self.faults.iter().find(|fault| fault.felt.is_none());
        anyhow::ensure!(not.is_none(), "{}: no message was late, it did not bite", not.map_or("", |fault| &fault.what));
        Ok(self)
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rate, took, sends, accepted, shown, cut, closed, slowest, .. } = self;
        write!(out, "     {sends} sends ({rate}/s for {took:.0?}), {accepted} accepted, {shown} events shown; ")?;
        writeln!(out, "0 lost, 0 doubled, in order: with 95 % fewer than {}", bound(*accepted))?;
        write!(out, "     slowest {slowest:.2?}; {closed} connections broke ({cut} with sends in flight)")?;
        match self.back {
            Some(back) => writeln!(out, ", 99 % back within {back:.2?}")?,
            None => writeln!(out)?,
        }
        for Fault { what, at, felt } in &self.faults {
            match felt {
                Some(felt) => writeln!(out, "     {:>6.1} s  {what}: late messages until {felt:.2?} after it", at.as_secs_f64())?,
                None => writeln!(out, "     {:>6.1} s  {what}: no message was late", at.as_secs_f64())?,
            }
        }
        Ok(())
    }
}

/// Three over N: the share of wrong messages that none seen in N leaves possible (95 %).
pub(crate) fn bound(clean: usize) -> String {
    if clean == 0 {
        return "nobody knows how many".to_owned();
    }
    #[expect(clippy::cast_precision_loss, reason = "counts of messages, far below 2^53")]
    let share = 3.0 / clean as f64;
    if share >= 0.001 { format!("{:.2} %", share * 100.0) } else { format!("{share:.1e}") }
}

/// Of each message that was shown: when it was sent, and when the last of the devices had it.
fn messages(entries: &[Entry]) -> Vec<(Duration, Duration)> {
    let mut all: HashMap<Uuid, (u64, u64)> = HashMap::new();
    for entry in entries {
        match &entry.what {
            What::Invoke { id, .. } => drop(all.insert(*id, (entry.t_us, entry.t_us))),
            What::Deliver { seen, .. } if &*entry.client.device != AUDIT => {
                if let Some((_, shown)) = all.get_mut(&seen.id) {
                    *shown = (*shown).max(entry.t_us);
                }
            }
            _ => {}
        }
    }
    all.into_values().map(|(sent, shown)| (Duration::from_micros(sent), Duration::from_micros(shown))).collect()
}

/// Each late message is the last fault's before it became late, or, if there was none yet, the first one's while it was on its way. (That somebody has
/// died at a place in the code is noticed a moment after it.)
fn felt(messages: &[(Duration, Duration)], faults: Vec<(Duration, String)>) -> Vec<Fault> {
    let mut faults: Vec<_> = faults.into_iter().map(|(at, what)| Fault { what, at, felt: None }).collect();
    for (sent, shown) in messages {
        if shown.saturating_sub(*sent) <= LATE {
            continue;
        }
        let before = faults.iter().rposition(|fault| fault.at <= *sent + LATE);
        let Some(fault) = before.or_else(|| faults.iter().position(|fault| fault.at <= *shown)).map(|at| &mut faults[at]) else {
            continue;
        };
        fault.felt = fault.felt.max(Some(shown.saturating_sub(fault.at)));
    }
    faults
}

/// The 99th percentile of the times from a close to the next attach of the same device.
fn back(entries: &[Entry]) -> Option<Duration> {
    let mut away = HashMap::new();
    let mut times = Vec::new();
    for entry in entries {
        match &entry.what {
            What::Close { code, .. } if *code != Some(1000) => drop(away.entry(&entry.client).or_insert(entry.t_us)),
            What::Attach { .. } => times.extend(away.remove(&entry.client).map(|since| entry.t_us - since)),
            _ => {}
        }
    }
    times.sort_unstable();
    let at = (times.len() * 99).div_ceil(100).checked_sub(1)?;
    Some(Duration::from_micros(times[at]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use loadtest::record::ClientId;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_late_message_is_put_down_to_the_fault_before_it() {
        let faults = vec![(10 * S, "one".to_owned()), (20 * S, "two".to_owned()), (30 * S, "three".to_owned())];
        // in time; late, sent before the first fault; late after the first; late before the second; late by the second; in time after the third
        let messages = [(S, S), (9 * S, 12 * S), (11 * S, 14 * S), (19 * S, 26 * S), (20 * S - LATE, 23 * S), (31 * S, 31 * S)];
        let felt: Vec<_> = felt(&messages, faults).into_iter().map(|fault| fault.felt).collect();
        assert_eq!(felt, [Some(16 * S), Some(3 * S), None]);
    }

    #[test]
    fn the_bound_is_three_over_n() {
        assert_eq!([bound(0), bound(300), bound(1_000_000)], ["nobody knows how many", "1.00 %", "3.0e-6"].map(str::to_owned));
    }

    #[test]
    fn back_is_from_the_close_to_the_next_attach() {
        let entry = |t_us, user, what| Entry { t_us, client: ClientId::new(user, "a"), what };
        let close = || What::Close { code: None, in_flight: 0, why: String::new() };
        let attach = || What::Attach { cursor: None, epoch: "1".to_owned() };
        assert_eq!(back(&[entry(0, 1, attach())]), None);
        // an attempt that fails in between is no return
        let entries =
            [entry(5, 1, close()), entry(6, 2, close()), entry(7, 1, close()), entry(9, 1, attach()), entry(16, 2, attach())];
        assert_eq!(back(&entries), Some(Duration::from_micros(10)));
    }
}
