//! A recording, arranged for the checkers: sends by identity, events by device and attach, history by reader.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use uuid::Uuid;

use crate::frame::{EventKind, members};
use crate::record::{ClientId, Entry, Seen, What};

/// The identity of a message: sender, conversation, id.
pub(super) type Key<'a> = (u64, &'a str, Uuid);

/// One send as its sender saw it.
#[derive(Debug)]
pub(super) struct Sent<'a> {
    pub(super) client: &'a ClientId,
    pub(super) text: &'a str,
    pub(super) accepted: bool,
    /// The code of a final refusal.
    pub(super) refused: Option<&'a str>,
}

/// One step of what a device saw on one connection.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step<'a> {
    Event(u64, &'a Seen),
    Live(u64),
}

/// What a device saw between one hello and the next.
#[derive(Debug)]
pub(super) struct Attach<'a> {
    pub(super) cursor: Option<u64>,
    pub(super) steps: Vec<Step<'a>>,
}

impl<'a> Attach<'a> {
    pub(super) fn events(&self) -> impl Iterator<Item = (u64, &'a Seen)> + '_ {
        self.steps.iter().filter_map(|step| match *step {
            Step::Event(seq, seen) => Some((seq, seen)),
            Step::Live(_) => None,
        })
    }
}

/// What a device saw in all.
#[derive(Debug, Default)]
pub(super) struct Device<'a> {
    pub(super) attaches: Vec<Attach<'a>>,
    /// Resyncs: reason and head.
    pub(super) resyncs: Vec<(&'a str, u64)>,
}

impl<'a> Device<'a> {
    pub(super) fn events(&self) -> impl Iterator<Item = (u64, &'a Seen)> + '_ {
        self.attaches.iter().flat_map(Attach::events)
    }

    /// Whether it began at the beginning, so that it is entitled to everything.
    pub(super) fn is_entitled(&self) -> bool {
        self.attaches.first().is_some_and(|attach| attach.cursor == Some(0))
    }

    /// Whether it began at the beginning and was told that it has everything.
    pub(super) fn saw_everything(&self) -> bool {
        let live = |attach: &Attach<'_>| attach.steps.iter().any(|step| matches!(step, Step::Live(_)));
        self.is_entitled() && self.attaches.iter().any(live)
    }
}

/// What one reader got from `history`.
#[derive(Debug, Default)]
pub(super) struct History<'a> {
    pub(super) messages: Vec<&'a Seen>,
    /// The conversations it read to their beginning.
    pub(super) ended: BTreeSet<&'a str>,
}

/// The recording by sends, devices and readers.
#[derive(Debug, Default)]
pub(super) struct Index<'a> {
    pub(super) sends: HashMap<Key<'a>, Sent<'a>>,
    /// The sends of each device into each conversation, in the order they were decided.
    pub(super) invoked: BTreeMap<(&'a ClientId, &'a str), Vec<Key<'a>>>,
    pub(super) devices: BTreeMap<&'a ClientId, Device<'a>>,
    pub(super) histories: BTreeMap<&'a ClientId, History<'a>>,
    by_id: HashMap<(u64, Uuid), Key<'a>>,
}

impl<'a> Index<'a> {
    pub(super) fn build(entries: &'a [Entry]) -> Self {
        let mut index = Self::default();
        for entry in entries {
            index.take(&entry.client, &entry.what);
        }
        index
    }

    fn take(&mut self, client: &'a ClientId, what: &'a What) {
        match what {
            What::Invoke { id, conversation, text } => self.invoke(client, (client.user, conversation, *id), text),
            What::Accepted { id, conversation } => {
                if let Some(sent) = self.sent(client, *id, conversation) {
                    sent.accepted = true;
                }
            }
            What::Refused { id, code, is_final: true } => {
                let key = self.by_id.get(&(client.user, *id)).copied();
                if let Some(sent) = key.and_then(|key| self.sends.get_mut(&key)) {
                    sent.refused = Some(code);
                }
            }
            What::Attach { cursor, .. } => {
                self.device(client).attaches.push(Attach { cursor: *cursor, steps: Vec::new() });
            }
            What::Live { head } => self.step(client, Step::Live(*head)),
            What::Deliver { seq, seen } => self.step(client, Step::Event(*seq, seen)),
            What::Resync { reason, head, .. } => self.device(client).resyncs.push((reason, *head)),
            What::History { seen } => self.histories.entry(client).or_default().messages.push(seen),
            What::HistoryEnd { conversation } => {
                self.histories.entry(client).or_default().ended.insert(conversation);
            }
            What::Refused { .. } | What::Unknown { .. } | What::Move { .. } | What::Close { .. } => {}
        }
    }

    fn invoke(&mut self, client: &'a ClientId, key: Key<'a>, text: &'a str) {
        self.sends.insert(key, Sent { client, text, accepted: false, refused: None });
        self.invoked.entry((client, key.1)).or_default().push(key);
        self.by_id.insert((key.0, key.2), key);
    }

    /// The send an answer belongs to: the conversation the server names must be the one that was meant.
    fn sent(&mut self, client: &ClientId, id: Uuid, conversation: &str) -> Option<&mut Sent<'a>> {
        let key = *self.by_id.get(&(client.user, id)).filter(|key| key.1 == conversation)?;
        self.sends.get_mut(&key)
    }

    fn device(&mut self, client: &'a ClientId) -> &mut Device<'a> {
        self.devices.entry(client).or_default()
    }

    fn step(&mut self, client: &'a ClientId, step: Step<'a>) {
        let device = self.device(client);
        if device.attaches.is_empty() {
            device.attaches.push(Attach { cursor: None, steps: Vec::new() });
        }
        if let Some(attach) = device.attaches.last_mut() {
            attach.steps.push(step);
        }
    }

    /// The accepted messages.
    pub(super) fn accepted(&self) -> impl Iterator<Item = Key<'a>> + '_ {
        self.sends.iter().filter(|(_, sent)| sent.accepted).map(|(key, _)| *key)
    }

    /// The conversations that hold an accepted message.
    pub(super) fn accepted_conversations(&self) -> BTreeSet<&'a str> {
        self.accepted().map(|key| key.1).collect()
    }

    /// The users that are entitled to an accepted message.
    pub(super) fn entitled_users(&self) -> BTreeSet<u64> {
        self.accepted_conversations().into_iter().filter_map(members).flatten().collect()
    }
}

/// The identity of what was shown to `viewer`; a refusal belongs to the viewer's own send.
pub(super) fn key_of(seen: &Seen, viewer: u64) -> Key<'_> {
    (seen.from.unwrap_or(viewer), &seen.conversation, seen.id)
}

/// Whether it is a message.
pub(super) fn is_message(seen: &Seen) -> bool {
    seen.event == EventKind::Message
}
