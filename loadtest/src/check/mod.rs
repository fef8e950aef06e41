//! The judges. They read only what clients recorded and what `history` answered at the end.
//!
//! Each checker finds one kind of fault; a recording that shows too little is a fault too (`thin`), so that a test in
//! which nothing happened cannot pass.

mod delivery;
mod index;
mod order;
#[cfg(test)]
mod planted;

use std::fmt;

use crate::record::Entry;
use index::Index;

/// So many offenders of each checker are printed.
const SHOWN: usize = 8;

/// The kinds of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checker {
    /// Accepted, but absent from a device that is entitled to it, or from history.
    Lost,
    /// A send with neither a final answer nor an event at the end.
    Silent,
    /// Shown but never sent, with another body, to a non-member, or after a final refusal.
    Phantom,
    /// One message under two numbers or positions, or one number twice within one attach.
    Duplicate,
    /// Two orders of one conversation, or two sends of one device inverted.
    Order,
    /// A hole in a mailbox, or a resume that did not go on at cursor + 1.
    Gap,
    /// Too little was recorded to judge by.
    Thin,
}

impl Checker {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 7] = [Self::Lost, Self::Silent, Self::Phantom, Self::Duplicate, Self::Order, Self::Gap, Self::Thin];

    /// Its name in the table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Silent => "silent",
            Self::Phantom => "phantom",
            Self::Duplicate => "duplicate",
            Self::Order => "order",
            Self::Gap => "gap",
            Self::Thin => "thin",
        }
    }
}

/// What a recording must show at the least.
#[derive(Debug, Clone, Copy)]
pub struct Expect {
    /// The number of sends that were intended.
    pub sends: usize,
    /// The share of them that must have been accepted.
    pub accepted: f64,
    /// Whether every mailbox and every conversation must have been read back from its beginning.
    pub read_back: bool,
}

impl Expect {
    /// At least this many sends, 95 % of them accepted, and everything read back.
    #[must_use]
    pub fn sends(sends: usize) -> Self {
        Self { sends, accepted: 0.95, read_back: true }
    }
}

/// What one checker found.
#[derive(Debug, Clone)]
pub struct Finding {
    /// The checker.
    pub checker: Checker,
    /// How many things it looked at.
    pub examined: usize,
    /// The offenders.
    pub offences: Vec<String>,
}

impl Finding {
    fn new(checker: Checker) -> Self {
        Self { checker, examined: 0, offences: Vec::new() }
    }

    /// Looks at one thing more; it offends unless `good`.
    fn examine(&mut self, good: bool, offence: impl FnOnce() -> String) {
        self.examined += 1;
        if !good {
            self.offences.push(offence());
        }
    }
}

/// What all checkers found.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// One for each checker, in the order of [`Checker::ALL`].
    pub findings: Vec<Finding>,
    /// Sends that were decided.
    pub sends: usize,
    /// Sends that were accepted.
    pub accepted: usize,
    /// Events that were shown.
    pub delivered: usize,
    /// Attaches of all devices.
    pub attaches: usize,
}

impl Verdict {
    /// Whether no checker found anything.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.iter().all(|finding| finding.offences.is_empty())
    }

    /// The checkers that found something.
    #[must_use]
    pub fn fired(&self) -> Vec<Checker> {
        self.findings.iter().filter(|finding| !finding.offences.is_empty()).map(|finding| finding.checker).collect()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sends, accepted, delivered, attaches, .. } = self;
        writeln!(out, "{sends} sends, {accepted} accepted, {delivered} events shown, {attaches} attaches")?;
        writeln!(out, "{:<10} {:>9} {:>9}", "checker", "examined", "offences")?;
        for finding in &self.findings {
            let (name, count) = (finding.checker.name(), finding.offences.len());
            writeln!(out, "{name:<10} {:>9} {count:>9}", finding.examined)?;
        }
        for finding in &self.findings {
            for offence in finding.offences.iter().take(SHOWN) {
                writeln!(out, "  {}: {offence}", finding.checker.name())?;
            }
        }
        Ok(())
    }
}

/// Judges a recording.
#[must_use]
pub fn judge(entries: &[Entry], expect: Expect) -> Verdict {
    let index = Index::build(entries);
    let findings = vec![
        delivery::lost(&index),
        delivery::silent(&index),
        delivery::phantom(&index),
        order::duplicate(&index),
        order::order(&index),
        order::gap(&index),
        thin(&index, expect),
    ];
    let accepted = index.sends.values().filter(|sent| sent.accepted).count();
    let delivered = index.devices.values().map(|device| device.events().count()).sum();
    let attaches = index.devices.values().map(|device| device.attaches.len()).sum();
    Verdict { findings, sends: index.sends.len(), accepted, delivered, attaches }
}

/// Whether the recording shows enough to judge by.
#[expect(clippy::cast_precision_loss, reason = "counts of messages, far below 2^53")]
fn thin(index: &Index<'_>, expect: Expect) -> Finding {
    let mut finding = Finding::new(Checker::Thin);
    let accepted = index.sends.values().filter(|sent| sent.accepted).count();
    let intended = expect.sends.max(index.sends.len());
    let share = accepted as f64 / intended as f64;
    // Without a send the share is no number, and no number is not enough.
    finding.examine(share >= expect.accepted, || format!("{accepted} of {intended} intended sends accepted"));
    if expect.read_back {
        for user in index.entitled_users() {
            let whole = index.devices.iter().any(|(client, device)| client.user == user && device.saw_everything());
            finding.examine(whole, || format!("the mailbox of {user} was never read from its beginning"));
        }
        for conversation in index.accepted_conversations() {
            let read = index.histories.values().any(|history| history.ended.contains(conversation));
            finding.examine(read, || format!("{conversation} was never read back"));
        }
    }
    finding
}
