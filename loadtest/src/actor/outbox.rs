//! The sends that are not settled, in order. Pure: no clock of its own, no socket.
//!
//! On one connection the items that were sent are always a prefix. A refusal that is not final stops new sends; when
//! the answers still owed are in, everything unsettled is sent again from the oldest, with the same ids.

use std::collections::VecDeque;

use tokio::time::Instant;
use uuid::Uuid;

/// One unsettled send.
#[derive(Debug, Clone)]
pub struct Item {
    /// Its id, kept for every attempt.
    pub id: Uuid,
    /// The recipient as the wire names it.
    pub to: String,
    /// The body.
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Sent,
    Refused,
}

/// A send and how far it is.
#[derive(Debug)]
struct Entry {
    item: Item,
    state: State,
    /// When the attempt that may be accepted was written: the first since it was refused.
    written: Option<Instant>,
}

/// The unsettled sends of one device.
#[derive(Debug, Default)]
pub struct Outbox {
    items: VecDeque<Entry>,
    /// `items[..next]` were sent on this connection.
    next: usize,
    in_flight: usize,
    refused: usize,
    hold_until: Option<Instant>,
}

impl Outbox {
    /// Appends a send.
    pub fn push(&mut self, item: Item) {
        self.items.push_back(Entry { item, state: State::Waiting, written: None });
    }

    /// How many are unsettled.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether all is settled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How many wait for their answer on this connection.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Until when nothing is to be sent, because the server said so.
    #[must_use]
    pub fn hold_until(&self) -> Option<Instant> {
        self.hold_until
    }

    /// Whether nothing is sent now because something was put off.
    #[must_use]
    pub fn is_held(&self, now: Instant) -> bool {
        self.hold_until.is_some_and(|until| now < until) || self.refused > 0
    }

    /// The next one to put on the wire, if it may be sent now. It counts as sent.
    pub fn take_next(&mut self, window: usize, now: Instant) -> Option<Item> {
        if self.is_held(now) || self.in_flight >= window {
            return None;
        }
        self.hold_until = None;
        let entry = self.items.get_mut(self.next)?;
        entry.state = State::Sent;
        entry.written.get_or_insert(now);
        self.next += 1;
        self.in_flight += 1;
        Some(entry.item.clone())
    }

    /// When it was written first, refusals aside: an attempt of unknown outcome, or one whose connection broke, may be the one that is accepted.
    #[must_use]
    pub fn written_at(&self, id: Uuid) -> Option<Instant> {
        self.items.get(self.find(id)?)?.written
    }

    /// It was refused, and will be written anew.
    pub fn refused(&mut self, id: Uuid) {
        if let Some(entry) = self.find(id).and_then(|index| self.items.get_mut(index)) {
            entry.written = None;
        }
    }

    /// The answer is final: accepted, or refused for good. Returns whether it was unsettled.
    pub fn settle(&mut self, id: Uuid) -> bool {
        let Some(index) = self.find(id) else { return false };
        match self.items.remove(index).map(|entry| entry.state) {
            Some(State::Sent) => self.in_flight -= 1,
            Some(State::Refused) => self.refused -= 1,
            Some(State::Waiting) | None => {}
        }
        if index < self.next {
            self.next -= 1;
        }
        self.rewind_when_answered();
        true
    }

    /// Not this time: to be sent again, not before `again_at`. Returns whether it was unsettled.
    pub fn put_back(&mut self, id: Uuid, again_at: Instant) -> bool {
        let Some(index) = self.find(id) else { return false };
        if let Some(entry) = self.items.get_mut(index).filter(|entry| entry.state == State::Sent) {
            entry.state = State::Refused;
            self.in_flight -= 1;
            self.refused += 1;
        }
        self.hold_until = Some(self.hold_until.map_or(again_at, |until| until.max(again_at)));
        self.rewind_when_answered();
        true
    }

    /// The connection is gone: everything is to be sent again. Returns how many were unanswered.
    pub fn disconnected(&mut self) -> usize {
        let unanswered = self.in_flight;
        self.rewind();
        self.hold_until = None;
        unanswered
    }

    fn find(&self, id: Uuid) -> Option<usize> {
        self.items.iter().position(|entry| entry.item.id == id)
    }

    fn rewind_when_answered(&mut self) {
        if self.refused > 0 && self.in_flight == 0 {
            self.rewind();
        }
    }

    fn rewind(&mut self) {
        for entry in self.items.iter_mut().take(self.next) {
            entry.state = State::Waiting;
        }
        (self.next, self.in_flight, self.refused) = (0, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn outbox(count: usize) -> (Outbox, Vec<Uuid>) {
        let mut outbox = Outbox::default();
        let ids: Vec<_> = (0..count).map(|_| Uuid::now_v7()).collect();
        for &id in &ids {
            outbox.push(Item { id, to: "u:1".to_owned(), text: "x".to_owned() });
        }
        (outbox, ids)
    }

    fn take_all(outbox: &mut Outbox, now: Instant) -> Vec<Uuid> {
        std::iter::from_fn(|| outbox.take_next(32, now)).map(|item| item.id).collect()
    }

    #[test]
    fn the_window_bounds_what_is_in_flight() {
        let (mut outbox, ids) = outbox(3);
        let now = Instant::now();
        assert_eq!(outbox.take_next(2, now).unwrap().id, ids[0]);
        assert_eq!((outbox.written_at(ids[0]), outbox.written_at(ids[1])), (Some(now), None));
        assert_eq!(outbox.take_next(2, now).unwrap().id, ids[1]);
        assert!(outbox.take_next(2, now).is_none());
        assert!(outbox.settle(ids[1]));
        assert_eq!(outbox.take_next(2, now).unwrap().id, ids[2]);
        assert_eq!((outbox.len(), outbox.in_flight()), (2, 2));
    }

    #[test]
    fn a_refusal_rewinds_to_the_oldest_once_all_answers_are_in() {
        let (mut outbox, ids) = outbox(4);
        let now = Instant::now();
        let later = now + Duration::from_millis(400);
        assert_eq!(outbox.take_next(3, now).unwrap().id, ids[0]);
        outbox.take_next(3, now).unwrap();
        outbox.take_next(3, now).unwrap();
        assert!(outbox.put_back(ids[0], later));
        assert!(outbox.take_next(3, later).is_none(), "two answers are owed");
        outbox.put_back(ids[1], now);
        outbox.settle(ids[2]);
        assert!(outbox.take_next(3, now).is_none(), "the server said when");
        assert_eq!(take_all(&mut outbox, later), [ids[0], ids[1], ids[3]]);
    }

    #[test]
    fn a_broken_connection_sends_everything_again_in_order() {
        let (mut outbox, ids) = outbox(3);
        let now = Instant::now();
        take_all(&mut outbox, now);
        outbox.settle(ids[1]);
        assert_eq!(outbox.disconnected(), 2);
        assert_eq!(take_all(&mut outbox, now), [ids[0], ids[2]]);
        assert!(!outbox.settle(ids[1]), "settled before");
    }

    #[test]
    fn an_attempt_counts_from_its_first_writing_unless_it_was_refused() {
        let (mut outbox, ids) = outbox(1);
        let (first, second, third) =
            (Instant::now(), Instant::now() + Duration::from_secs(5), Instant::now() + Duration::from_secs(9));
        outbox.take_next(1, first).unwrap();
        outbox.put_back(ids[0], second);
        outbox.take_next(1, second).unwrap();
        assert_eq!(outbox.written_at(ids[0]), Some(first), "of unknown outcome: the first may be accepted yet");
        outbox.refused(ids[0]);
        outbox.put_back(ids[0], third);
        outbox.take_next(1, third).unwrap();
        assert_eq!(outbox.written_at(ids[0]), Some(third));
    }
}
