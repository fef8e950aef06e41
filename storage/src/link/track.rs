//! What the receiver of a link knows of what it has missed. Pure.

/// Why something may have been missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gap {
    /// The first frame of a link: what was meant for this node before is lost.
    New,
    /// Frames of pushes were dropped before they were written.
    Counter,
}

/// Counters of one link.
#[derive(Debug, Default)]
pub(super) struct Track {
    counter: u64,
    opened: bool,
}

impl Track {
    /// A frame of pushes: its counter is the next one.
    pub(super) fn pushes(&mut self, counter: u64) -> Option<Gap> {
        let expected = self.counter.wrapping_add(1);
        self.hear(counter, expected)
    }

    /// Any other frame with a counter: it is the one of the last pushes.
    pub(super) fn beat(&mut self, counter: u64) -> Option<Gap> {
        self.hear(counter, self.counter)
    }

    /// Whether the link has had its first frame.
    pub(super) const fn opened(&self) -> bool {
        self.opened
    }

    fn hear(&mut self, counter: u64, expected: u64) -> Option<Gap> {
        self.counter = counter;
        if !std::mem::replace(&mut self.opened, true) {
            return Some(Gap::New);
        }
        (counter != expected).then_some(Gap::Counter)
    }
}
