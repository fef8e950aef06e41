//! How far the messages of this run have come: accepted, delivered, read. A tick never goes back, and each is told once.

use std::collections::{BTreeMap, VecDeque};

use protocol::{MessageId, Position, UserId};

use crate::frame::Receipt;

/// Own messages that are followed; the oldest give way.
const FOLLOWED_MAX: usize = 1024;
/// Conversations whose receipts are known.
const CONVERSATIONS_MAX: usize = 1000;

/// How far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tick {
    Accepted,
    Delivered,
    Read,
}

#[derive(Debug)]
struct Followed {
    label: u64,
    id: MessageId,
    place: Option<(String, Position)>,
    told: Option<Tick>,
}

#[derive(Debug, Default)]
pub(crate) struct Ticks {
    followed: VecDeque<Followed>,
    /// Delivered and read by others, by conversation.
    known: BTreeMap<String, (Position, Position)>,
    labels: u64,
}

impl Ticks {
    /// A message of ours is on its way. Its label on the screen.
    pub(crate) fn follow(&mut self, id: MessageId) -> u64 {
        if self.followed.len() >= FOLLOWED_MAX {
            self.followed.pop_front();
        }
        self.labels += 1;
        self.followed.push_back(Followed { label: self.labels, id, place: None, told: None });
        self.labels
    }

    pub(crate) fn follows(&self, id: MessageId) -> bool {
        self.followed.iter().any(|one| one.id == id)
    }

    /// It is durable. Its label, the first time.
    pub(crate) fn accepted(&mut self, id: MessageId) -> Option<u64> {
        let one = self.followed.iter_mut().find(|one| one.id == id)?;
        if one.told.is_some() {
            return None;
        }
        one.told = Some(Tick::Accepted);
        Some(one.label)
    }

    /// It will never be a message.
    pub(crate) fn refused(&mut self, id: MessageId) -> Option<u64> {
        let at = self.followed.iter().position(|one| one.id == id)?;
        self.followed.remove(at).map(|one| one.label)
    }

    /// Its place in the conversation is known.
    pub(crate) fn placed(&mut self, id: MessageId, conversation: &str, position: Position) -> Vec<(u64, Tick)> {
        let Some(one) = self.followed.iter_mut().find(|one| one.id == id) else { return Vec::new() };
        one.place = Some((conversation.to_owned(), position));
        self.news(conversation)
    }

    /// How far a member has come. Positions only rise, whatever the order they are told in.
    pub(crate) fn receipt(&mut self, receipt: &Receipt, me: Option<UserId>) -> Vec<(u64, Tick)> {
        if Some(receipt.member) == me {
            return Vec::new();
        }
        if self.known.len() >= CONVERSATIONS_MAX && !self.known.contains_key(&receipt.conversation) {
            self.known.pop_first();
        }
        let known = self.known.entry(receipt.conversation.clone()).or_default();
        *known = (known.0.max(receipt.delivered), known.1.max(receipt.read));
        self.news(&receipt.conversation)
    }

    /// The newest message for each tick that has come further.
    fn news(&mut self, conversation: &str) -> Vec<(u64, Tick)> {
        let Some((delivered, read)) = self.known.get(conversation).copied() else { return Vec::new() };
        let mut news: BTreeMap<Tick, u64> = BTreeMap::new();
        for one in &mut self.followed {
            let Some((_, position)) = one.place.as_ref().filter(|(place, _)| place == conversation) else { continue };
            let tick = match *position {
                position if position <= read => Tick::Read,
                position if position <= delivered => Tick::Delivered,
                _ => continue,
            };
            if one.told < Some(tick) {
                one.told = Some(tick);
                news.insert(tick, one.label);
            }
        }
        news.into_iter().map(|(tick, label)| (label, tick)).collect()
    }
}
