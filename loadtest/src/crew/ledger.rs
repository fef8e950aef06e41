//! The judge that watches while messages pass, and forgets what is settled.
//!
//! For each stream (what one device sends) it keeps a window of the messages that are not settled: neither answered
//! nor shown by every device that must show them. What is below the window was settled, so seeing it again is a
//! duplicate; what is above it was never sent. Memory is what is under way, however long the run is.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::offence::{Fault, Offences};
use crate::body::Bodies;
use crate::frame::members;

/// A message that is not settled after so many later ones of its stream is given up, so that a loss costs no memory.
const WINDOW_MAX: usize = 1 << 16;
/// The bits of the sender's own devices come after those of the receiver's.
const OWN: u32 = 16;

/// A message under way.
#[derive(Debug, Clone, Copy)]
struct Entry {
    due_us: u64,
    to: u32,
    answered: bool,
    /// Which devices have shown it: the receiver's, then the sender's.
    shown: u32,
    position: u64,
    /// Its number in the receiver's mailbox and in the sender's.
    seqs: [u64; 2],
}

#[derive(Debug, Default)]
struct Window {
    /// The number of the first entry.
    low: u32,
    entries: VecDeque<Entry>,
}

/// Where a message was shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    /// The user, counted from 0 in this crew.
    pub(super) user: u32,
    pub(super) device: u32,
    pub(super) seq: u64,
    pub(super) position: u64,
    pub(super) conversation: &'a str,
    /// The sender as the event names it.
    pub(super) from: Option<u64>,
}

/// What a message that was shown is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// To the receiver, and when it was due.
    Received(u64),
    /// To the sender, and when it was due.
    Copied(u64),
    /// An offence, already noted.
    Wrong,
}

/// The judge of one crew.
#[derive(Debug)]
pub(super) struct Ledger {
    /// The users of the crew, by their numbers on the server.
    users: Vec<u64>,
    devices: u32,
    first_stream: u32,
    bodies: Bodies,
    windows: Vec<Mutex<Window>>,
    pub(super) offences: Offences,
    sent: AtomicU64,
    settled: AtomicU64,
}

impl Ledger {
    pub(super) fn new(users: Vec<u64>, devices: u32, first_stream: u32, bodies: Bodies) -> Self {
        let lanes = users.len() * devices as usize;
        let windows = std::iter::repeat_with(Mutex::default).take(lanes).collect();
        let (sent, settled) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { users, devices, first_stream, bodies, windows, offences: Offences::default(), sent, settled }
    }

    /// Messages that were sent, and those of them that are settled.
    pub(super) fn progress(&self) -> (u64, u64) {
        (self.sent.load(Ordering::Relaxed), self.settled.load(Ordering::Relaxed))
    }

    /// Lane `lane` decides a message to user `to`. Its number.
    pub(super) fn sent(&self, lane: u32, to: u32, due_us: u64) -> u32 {
        let Some(mut window) = self.window(lane) else { return 0 };
        if window.entries.len() >= WINDOW_MAX {
            self.give_up_first(lane, &mut window);
        }
        let number = window.low + u32::try_from(window.entries.len()).unwrap_or_default();
        window.entries.push_back(Entry { due_us, to, answered: false, shown: 0, position: 0, seqs: [0; 2] });
        self.sent.fetch_add(1, Ordering::Relaxed);
        number
    }

    /// `accepted` for a message of this lane: when it was due, if this is its first answer.
    pub(super) fn accepted(&self, lane: u32, number: u32) -> Option<u64> {
        let mut window = self.window(lane)?;
        let entry = window.entry(number)?;
        let first = !std::mem::replace(&mut entry.answered, true);
        let due = entry.due_us;
        self.settle(&mut window);
        first.then_some(due)
    }

    /// A final refusal: nobody may be shown it from now on.
    pub(super) fn refused(&self, lane: u32, number: u32, code: &str) {
        let Some(mut window) = self.window(lane) else { return };
        let Some(entry) = window.entry(number) else { return };
        entry.answered = true;
        // As settled as it will be; if it is shown after all, it is below the window then.
        entry.shown = self.need();
        let entry = *entry;
        self.offences.note(Fault::Refused, || format!("{}: {code}", self.name(lane, number, &entry)));
        self.settle(&mut window);
    }

    /// A device shows message `number` of `stream`.
    pub(super) fn shown(&self, stream: u32, number: u32, place: Place<'_>) -> Shown {
        let lane = stream.wrapping_sub(self.first_stream);
        let Some(mut window) = self.window(lane) else {
            return self.wrong(Fault::Phantom, || format!("message {number} of stream {stream} is not of this crew"));
        };
        let low = window.low;
        let Some(entry) = window.entry(number) else {
            return if number < low {
                self.wrong(Fault::Duplicate, || {
                    format!(
                        "stream {stream} message {number}, settled before, again as seq {} of {}",
                        place.seq,
                        self.user(place.user)
                    )
                })
            } else {
                self.wrong(Fault::Phantom, || format!("stream {stream} message {number} was never sent"))
            };
        };
        let own = place.user == lane / self.devices;
        let whole = *entry;
        if let Some((fault, what)) = self.fault_of(lane, entry, own, place) {
            return self.wrong(fault, || {
                format!("{} at {}/{}: {what}", self.name(lane, number, &whole), self.user(place.user), place.device)
            });
        }
        entry.shown |= 1 << (place.device + if own { OWN } else { 0 });
        let due = entry.due_us;
        self.settle(&mut window);
        if own { Shown::Copied(due) } else { Shown::Received(due) }
    }

    /// What is wrong with showing this entry there; its numbers are kept if nothing is.
    fn fault_of(&self, lane: u32, entry: &mut Entry, own: bool, place: Place<'_>) -> Option<(Fault, String)> {
        let (sender, receiver) = (self.user(lane / self.devices), self.user(entry.to));
        if !own && place.user != entry.to {
            return Some((Fault::Phantom, "shown to a non-member".to_owned()));
        }
        if place.from != Some(sender) || members(place.conversation) != Some([sender.min(receiver), sender.max(receiver)]) {
            return Some((Fault::Phantom, format!("as from {:?} in {}", place.from, place.conversation)));
        }
        if entry.shown & 1 << (place.device + if own { OWN } else { 0 }) != 0 {
            return Some((Fault::Duplicate, format!("twice, the second time as seq {}", place.seq)));
        }
        if entry.position != 0 && entry.position != place.position {
            return Some((Fault::Order, format!("at position {}, elsewhere at {}", place.position, entry.position)));
        }
        let seq = entry.seqs.get_mut(usize::from(own))?;
        if *seq != 0 && *seq != place.seq {
            return Some((Fault::Duplicate, format!("as seq {} and, at another device, {seq}", place.seq)));
        }
        *seq = place.seq;
        entry.position = place.position;
        None
    }

    /// At the end: what is not settled is lost, or was never answered.
    pub(super) fn close(&self) {
        for lane in 0..u32::try_from(self.windows.len()).unwrap_or_default() {
            let Some(window) = self.window(lane) else { continue };
            for (index, entry) in window.entries.iter().enumerate() {
                self.leftover(lane, window.low + u32::try_from(index).unwrap_or_default(), entry);
            }
        }
    }

    fn leftover(&self, lane: u32, number: u32, entry: &Entry) {
        let missing = self.need() & !entry.shown;
        if !entry.answered {
            self.offences.note(Fault::Silent, || format!("{} has no final answer", self.name(lane, number, entry)));
        } else if missing != 0 {
            self.offences.note(Fault::Lost, || {
                let at = (0..2 * OWN).filter(|bit| missing & 1 << bit != 0).map(|bit| {
                    let user = if bit < OWN { entry.to } else { lane / self.devices };
                    format!("{}/{}", self.user(user), bit % OWN)
                });
                format!("{} accepted, never shown to {}", self.name(lane, number, entry), at.collect::<Vec<_>>().join(", "))
            });
        }
    }

    fn give_up_first(&self, lane: u32, window: &mut Window) {
        if let Some(entry) = window.entries.pop_front() {
            self.leftover(lane, window.low, &entry);
            window.low += 1;
            self.settled.fetch_add(1, Ordering::Relaxed);
            self.settle(window);
        }
    }

    /// Forgets what is settled at the front.
    fn settle(&self, window: &mut Window) {
        let need = self.need();
        while window.entries.front().is_some_and(|entry| entry.answered && entry.shown & need == need) {
            window.entries.pop_front();
            window.low += 1;
            self.settled.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The bits of all devices that must show a message.
    fn need(&self) -> u32 {
        let devices = (1_u32 << self.devices) - 1;
        devices | devices << OWN
    }

    fn wrong(&self, fault: Fault, what: impl FnOnce() -> String) -> Shown {
        self.offences.note(fault, what);
        Shown::Wrong
    }

    fn user(&self, index: u32) -> u64 {
        self.users.get(index as usize).copied().unwrap_or_default()
    }

    fn name(&self, lane: u32, number: u32, entry: &Entry) -> String {
        let id = self.bodies.id(self.first_stream + lane, number, entry.due_us);
        format!("{id} of {} to {}", self.user(lane / self.devices), self.user(entry.to))
    }

    fn window(&self, lane: u32) -> Option<MutexGuard<'_, Window>> {
        // Every change of a window is whole: a panic elsewhere does not spoil it.
        self.windows.get(lane as usize).map(|window| window.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Window {
    fn entry(&mut self, number: u32) -> Option<&mut Entry> {
        self.entries.get_mut(number.checked_sub(self.low)? as usize)
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
