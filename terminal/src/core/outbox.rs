//! Messages that are not accepted yet: in order, each with the id it keeps for every retry.

use std::collections::VecDeque;

use protocol::MessageId;
use serde::{Deserialize, Serialize};

use crate::core::backoff::Backoff;
use crate::frame::{Body, ClientFrame, ReplyTo, Send};

/// Messages that may wait here. At this many no more input is taken.
pub(crate) const OUTBOX_MAX: usize = 256;

/// A message that waits, as it is kept on disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Its place in the order; also names its file.
    pub(crate) number: u64,
    pub(crate) id: MessageId,
    /// `u:43` or `d:42:43`.
    pub(crate) to: String,
    pub(crate) text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reply_to: Option<ReplyTo>,
}

impl Entry {
    fn frame(&self) -> ClientFrame {
        let body = Body { text: self.text.clone() };
        ClientFrame::Send(Send { id: self.id, to: self.to.clone(), kind: "text", body, reply_to: self.reply_to.clone() })
    }
}

/// Why a message is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// It waits already, and is the same: nothing to do.
    Again,
    /// It waits already with another text or recipient.
    Reused,
    Full,
}

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    entries: VecDeque<Entry>,
    /// How many of the first entries are on their way on this connection.
    sent: usize,
    next: u64,
    /// Nothing is sent before; milliseconds of the core's clock.
    pause_until: u64,
    backoff: Backoff,
}

impl Outbox {
    /// What was kept. Ascending by number.
    pub(crate) fn restore(mut entries: Vec<Entry>) -> Self {
        entries.sort_by_key(|entry| entry.number);
        let next = entries.last().map_or(0, |last| last.number.saturating_add(1));
        Self { entries: entries.into(), next, ..Self::default() }
    }

    /// Of all that waits, the oldest first.
    pub(crate) fn ids(&self) -> impl Iterator<Item = MessageId> {
        self.entries.iter().map(|entry| entry.id)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.entries.len() >= OUTBOX_MAX
    }

    pub(crate) fn has(&self, id: MessageId) -> bool {
        self.entries.iter().any(|entry| entry.id == id)
    }

    /// Takes a message; it must be kept before it is sent. The number is given here.
    pub(crate) fn add(&mut self, id: MessageId, to: String, text: String, reply_to: Option<ReplyTo>) -> Result<&Entry, NotTaken> {
        if let Some(known) = self.entries.iter().find(|entry| entry.id == id) {
            let same = known.to == to && known.text == text && known.reply_to == reply_to;
            return Err(if same { NotTaken::Again } else { NotTaken::Reused });
        }
        if self.is_full() {
            return Err(NotTaken::Full);
        }
        self.entries.push_back(Entry { number: self.next, id, to, text, reply_to });
        self.next += 1;
        self.entries.back().ok_or(NotTaken::Full)
    }

    /// What is to be written now: in order, at most so many unanswered at once.
    pub(crate) fn due(&mut self, now: u64, in_flight: usize) -> Vec<ClientFrame> {
        if now < self.pause_until {
            return Vec::new();
        }
        let end = self.entries.len().min(in_flight);
        let frames = self.entries.range(self.sent.min(end)..end).map(Entry::frame).collect();
        self.sent = self.sent.max(end);
        frames
    }

    /// Whether answers are owed.
    pub(crate) fn is_owed(&self) -> bool {
        self.sent > 0
    }

    /// It is durable, or will never be a message: it leaves.
    pub(crate) fn settle(&mut self, id: MessageId) -> Option<Entry> {
        let at = self.entries.iter().position(|entry| entry.id == id)?;
        if at < self.sent {
            self.sent -= 1;
        }
        self.backoff.reset();
        self.entries.remove(at)
    }

    /// Not by this attempt: everything unanswered comes again, from the oldest on, after a while.
    pub(crate) fn again(&mut self, id: MessageId, now: u64, hint_ms: u64, random: f64) {
        if self.has(id) {
            self.sent = 0;
            let wait = self.backoff.next(random).max(hint_ms);
            self.pause_until = self.pause_until.max(now.saturating_add(wait));
        }
    }

    /// The connection is gone: no answers will come on it.
    pub(crate) fn rewind(&mut self) {
        self.sent = 0;
    }

    /// When something becomes due that is not now.
    pub(crate) fn deadline(&self, now: u64) -> Option<u64> {
        (self.sent < self.entries.len() && self.pause_until > now).then_some(self.pause_until)
    }
}
