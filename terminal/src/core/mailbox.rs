//! How far this device has come in its mailbox, and what it has said of it.

use std::collections::BTreeMap;

use protocol::Position;
use serde::{Deserialize, Serialize};

use crate::frame::{Hello, Receipt, Resync};

/// Read positions that wait for their confirmation; the oldest conversation by name gives way.
pub(crate) const READS_MAX: usize = 1000;
/// Events that may be shown before they are acknowledged. The server pauses at 256.
pub(crate) const ACKNOWLEDGE_EVERY: u64 = 32;

/// What is kept between two runs.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Mailbox {
    /// Which stream the cursor is of.
    pub(crate) epoch: Option<String>,
    /// The newest event that was shown. None: the server's own record is meant.
    pub(crate) cursor: Option<u64>,
    /// The newest receipt that was shown.
    pub(crate) rev: Option<Position>,
    /// Read positions that no receipt of our own has confirmed.
    #[serde(default)]
    pub(crate) reads: BTreeMap<String, Position>,
    #[serde(skip)]
    acknowledged: u64,
}

impl Mailbox {
    pub(crate) fn hello(&self, device: &str) -> Hello {
        let epoch = self.cursor.and(self.epoch.clone());
        Hello { device: device.to_owned(), cursor: self.cursor, epoch, rev: self.rev, version: 1 }
    }

    /// Whether an event is new; if so it is the newest from now on.
    pub(crate) fn take(&mut self, seq: u64) -> bool {
        let new = self.cursor.is_none_or(|cursor| seq > cursor);
        if new {
            self.cursor = Some(seq);
        }
        new
    }

    /// Everything up to here has come: where a device begins that had no cursor. Whether that is news.
    pub(crate) fn live(&mut self, head: u64) -> bool {
        let news = self.cursor.is_none() || self.rev.is_none();
        self.cursor.get_or_insert(head);
        self.rev.get_or_insert_default();
        news
    }

    /// The cursor is of no use: the next `hello` goes on from the oldest event there is.
    pub(crate) fn resync(&mut self, resync: &Resync) {
        if self.epoch.as_ref() != Some(&resync.epoch) {
            self.rev = Some(Position::default());
        }
        self.epoch = Some(resync.epoch.clone());
        self.cursor = Some(resync.floor);
        self.acknowledged = resync.floor;
    }

    /// The mailbox is not the one the cursor belongs to.
    pub(crate) fn forget(&mut self) {
        (self.epoch, self.cursor, self.rev, self.acknowledged) = (None, Some(0), None, 0);
    }

    /// A new connection owes the server everything again.
    pub(crate) fn connected(&mut self) {
        self.acknowledged = self.cursor.unwrap_or(0);
    }

    /// Events that were shown and not acknowledged.
    pub(crate) fn owed(&self) -> u64 {
        self.cursor.unwrap_or(0).saturating_sub(self.acknowledged)
    }

    /// What to acknowledge, if anything.
    pub(crate) fn acknowledge(&mut self) -> Option<u64> {
        let cursor = self.cursor.filter(|cursor| *cursor > self.acknowledged)?;
        self.acknowledged = cursor;
        Some(cursor)
    }

    /// Everything up to here was read. Whether that is news: it never goes back.
    pub(crate) fn read(&mut self, conversation: &str, position: Position) -> bool {
        if self.reads.get(conversation).is_some_and(|known| *known >= position) {
            return false;
        }
        if self.reads.len() >= READS_MAX && !self.reads.contains_key(conversation) {
            self.reads.pop_first();
        }
        self.reads.insert(conversation.to_owned(), position);
        true
    }

    /// A receipt was shown. `own`: it confirms read positions.
    pub(crate) fn receipt(&mut self, receipt: &Receipt, own: bool) {
        self.rev = self.rev.max(Some(receipt.rev));
        if own && self.reads.get(&receipt.conversation).is_some_and(|said| *said <= receipt.read) {
            self.reads.remove(&receipt.conversation);
        }
    }
}
