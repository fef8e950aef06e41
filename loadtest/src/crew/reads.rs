//! Reading: a device says now and then what it has read, and the first device of the sender that gets the receipt ends the wait.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use super::lane::Lane;
use crate::client::{Client, ClientError};
use crate::frame::{ClientFrame, Receipt, members};
use crate::series::Kind;

/// Marks of one reader to one sender that wait for their receipt; more are not measured.
const WAITING_MAX: usize = 64;
/// Marks one device says at once; the rest comes the next time.
const MARKS_MAX: usize = 50;

/// Marks of one reader to one sender: position, and when it was said.
type Said = VecDeque<(u64, u64)>;

/// Marks on their way, by reader and sender.
#[derive(Debug, Default)]
pub(super) struct Reads(Mutex<HashMap<(u64, u64), Said>>);

impl Reads {
    fn said(&self, pair: (u64, u64), position: u64, now_us: u64) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = all.entry(pair).or_default();
        // another device of the reader may have said it, and then its time counts
        if waiting.len() < WAITING_MAX && waiting.back().is_none_or(|(last, _)| *last < position) {
            waiting.push_back((position, now_us));
        }
    }

    /// When those were said that a receipt of this position confirms.
    fn told(&self, pair: (u64, u64), position: u64) -> Vec<u64> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(waiting) = all.get_mut(&pair) else { return Vec::new() };
        let confirmed = waiting.iter().take_while(|(said, _)| *said <= position).count();
        waiting.drain(..confirmed).map(|(_, at_us)| at_us).collect()
    }
}

/// What a device has been shown and not said to have read.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// By sender: the conversation, and its last position.
    unread: HashMap<u64, (String, u64)>,
    pub(super) due_at: Option<Instant>,
}

impl Lane {
    /// A message was shown.
    pub(super) fn shown(&mut self, from: Option<u64>, conversation: &str, position: u64) {
        let Some(reads) = &self.crew.scenario.reads else { return };
        let own = self.crew.user_number(self.user());
        let Some(from) = from.filter(|from| *from != own) else { return };
        self.reading.unread.insert(from, (conversation.to_owned(), position));
        self.reading.due_at.get_or_insert_with(|| Instant::now() + reads.every.0);
    }

    /// Acknowledges and says what is read, if it is time.
    pub(super) async fn read_due(&mut self, client: &mut Client) -> Result<(), ClientError> {
        if self.reading.due_at.is_none_or(|at| Instant::now() < at) {
            return Ok(());
        }
        self.acknowledge(client).await?;
        let own = self.crew.user_number(self.user());
        let senders: Vec<_> = self.reading.unread.keys().copied().take(MARKS_MAX).collect();
        for sender in senders {
            let Some((conversation, position)) = self.reading.unread.remove(&sender) else { continue };
            self.crew.reads.said((own, sender), position, self.crew.now_us());
            client.feed(&ClientFrame::Read { conversation: &conversation, position: &position.to_string() }).await?;
        }
        let every = self.crew.scenario.reads.as_ref().map(|reads| reads.every.0);
        self.reading.due_at = every.filter(|_| !self.reading.unread.is_empty()).map(|every| Instant::now() + every);
        client.flush().await
    }

    /// A receipt of somebody has come.
    pub(super) fn on_receipt(&self, receipt: &Receipt) {
        let own = self.crew.user_number(self.user());
        let with_me = members(&receipt.conversation).is_some_and(|users| users.contains(&own));
        if !with_me || receipt.member == own {
            return;
        }
        for said_us in self.crew.reads.told((receipt.member, own), receipt.read) {
            if self.crew.is_measured(said_us) {
                let took = self.crew.now_us().saturating_sub(said_us);
                self.crew.meters.add(Kind::Read, std::time::Duration::from_micros(took));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_confirms_what_is_at_or_below_it_once() {
        let reads = Reads::default();
        for (position, at_us) in [(5, 100), (5, 150), (9, 200), (12, 300)] {
            reads.said((1, 2), position, at_us);
        }
        assert!(reads.told((2, 1), 99).is_empty(), "the other way round");
        assert!(reads.told((1, 2), 4).is_empty());
        assert_eq!(reads.told((1, 2), 11), [100, 200]);
        assert!(reads.told((1, 2), 11).is_empty());
        assert_eq!(reads.told((1, 2), 12), [300]);
    }
}
