//! Read marks on their way. A mark is not answered, only confirmed by a receipt of one's own, which may never come (a cluster keeps none). So
//! each is said when it is made, and once again on every connection until it is confirmed; never faster than [`BURST`] a second.

use std::collections::{BTreeMap, BTreeSet};

use protocol::Position;

use crate::core::mailbox::READS_MAX;
use crate::frame::ClientFrame;

/// Marks that are said in a second; the server takes 100.
const BURST: usize = 40;
/// Of these, at most so many are said again: a new one need not wait for the old.
const AGAIN: usize = 20;
/// A second, milliseconds.
const WINDOW_MS: u64 = 1000;

/// Which conversations' marks are still to be said on this connection. Their positions are in the mailbox.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    new: BTreeSet<String>,
    again: BTreeSet<String>,
    /// When the present window began.
    since: u64,
    said: usize,
    pause_until: u64,
    /// Some were said on this connection.
    told: bool,
}

impl Reads {
    /// A mark was made, or moved.
    pub(crate) fn made(&mut self, conversation: &str) {
        self.again.remove(conversation);
        if self.new.len() >= READS_MAX && !self.new.contains(conversation) {
            self.new.pop_first();
        }
        self.new.insert(conversation.to_owned());
    }

    /// A connection is live: what waits is to be said on it.
    pub(crate) fn live(&mut self, waiting: &BTreeMap<String, Position>) {
        self.again = waiting.keys().filter(|conversation| !self.new.contains(*conversation)).cloned().collect();
        self.told = false;
    }

    /// Whether marks of this run were not said yet.
    pub(crate) fn has_new(&self) -> bool {
        !self.new.is_empty()
    }

    /// The server has dropped one that was too many. False: none was said here, it must have meant something else.
    pub(crate) fn too_many(&mut self, now: u64, hint_ms: u64) -> bool {
        if self.told {
            self.pause_until = self.pause_until.max(now.saturating_add(hint_ms.clamp(WINDOW_MS, 60 * WINDOW_MS)));
        }
        self.told
    }

    /// What is to be said now; `waiting` is what is not confirmed.
    pub(crate) fn due(&mut self, now: u64, waiting: &BTreeMap<String, Position>) -> Vec<ClientFrame> {
        if now < self.pause_until {
            return Vec::new();
        }
        if now >= self.since.saturating_add(WINDOW_MS) {
            (self.since, self.said) = (now, 0);
        }
        let mut frames = Vec::new();
        for (from, most) in [(&mut self.new, BURST), (&mut self.again, AGAIN)] {
            while self.said < most
                && let Some(conversation) = from.pop_first()
            {
                // confirmed meanwhile, or given way
                let Some(position) = waiting.get(&conversation).copied() else { continue };
                frames.push(ClientFrame::Read { conversation, position });
                self.said += 1;
            }
        }
        self.told |= !frames.is_empty();
        frames
    }

    /// When the rest of it is due; asked after [`Self::due`].
    pub(crate) fn deadline(&self) -> Option<u64> {
        let waits = !self.new.is_empty() || !self.again.is_empty();
        waits.then(|| self.pause_until.max(self.since.saturating_add(WINDOW_MS)))
    }
}
