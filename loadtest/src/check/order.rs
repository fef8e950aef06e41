//! Duplicate, order, gap: the numbers under which things were shown.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::delivery::name;
use super::index::{Attach, Index, Key, Step, is_message, key_of};
use super::{Checker, Finding};
use crate::record::{ClientId, Seen};

/// One message under two numbers or positions, or one number twice within one attach.
pub(super) fn duplicate(index: &Index<'_>) -> Finding {
    let mut finding = Finding::new(Checker::Duplicate);
    for (client, device) in &index.devices {
        let mut numbers: HashMap<(Key<'_>, bool), u64> = HashMap::new();
        for attach in &device.attaches {
            let mut within = HashSet::new();
            for (seq, seen) in attach.events() {
                let key = key_of(seen, client.user);
                finding.examine(within.insert(seq), || format!("{client} was shown seq {seq} twice in one attach"));
                let first = *numbers.entry((key, is_message(seen))).or_insert(seq);
                finding.examine(first == seq, || format!("{} at {client} as seq {first} and {seq}", name(key)));
            }
        }
    }
    for (client, history) in &index.histories {
        let mut read = HashSet::new();
        for seen in &history.messages {
            let key = key_of(seen, client.user);
            finding.examine(read.insert(key), || format!("{} twice in the history of {client}", name(key)));
        }
    }
    let mut positions: HashMap<Key<'_>, u64> = HashMap::new();
    for (client, seen) in messages(index) {
        let key = key_of(seen, client.user);
        let first = *positions.entry(key).or_insert(seen.position);
        finding.examine(first == seen.position, || format!("{} at positions {first} and {}", name(key), seen.position));
    }
    finding
}

/// Two orders of one conversation, or two sends of one device into one conversation inverted.
pub(super) fn order(index: &Index<'_>) -> Finding {
    let mut finding = Finding::new(Checker::Order);
    for (client, device) in &index.devices {
        let mut last: HashMap<&str, u64> = HashMap::new();
        for (seq, seen) in first_shown(client, device.events()) {
            let before = last.insert(&seen.conversation, seen.position);
            finding.examine(before.is_none_or(|before| before < seen.position), || {
                format!("{client}: seq {seq} of {} has position {} after {before:?}", seen.conversation, seen.position)
            });
        }
    }
    one_message_a_place(index, &mut finding);
    one_event_a_number(index, &mut finding);
    inversions(index, &mut finding);
    finding
}

/// The messages of a device by number, each where it was shown first (repeats are for `duplicate`).
fn first_shown<'a>(client: &ClientId, events: impl Iterator<Item = (u64, &'a Seen)>) -> BTreeMap<u64, &'a Seen> {
    let mut known = HashSet::new();
    let mut shown = BTreeMap::new();
    for (seq, seen) in events.filter(|(_, seen)| is_message(seen)) {
        if known.insert(key_of(seen, client.user)) {
            shown.entry(seq).or_insert(seen);
        }
    }
    shown
}

/// A position of a conversation holds one message, whoever looks.
fn one_message_a_place(index: &Index<'_>, finding: &mut Finding) {
    let mut places: HashMap<(&str, u64), Key<'_>> = HashMap::new();
    for (client, seen) in messages(index) {
        let key = key_of(seen, client.user);
        let first = *places.entry((&seen.conversation, seen.position)).or_insert(key);
        finding.examine(first == key, || format!("{} and {} both at {}", name(first), name(key), seen.position));
    }
}

/// A number of a mailbox holds one event, on every device of its user and after every fault.
fn one_event_a_number(index: &Index<'_>, finding: &mut Finding) {
    let mut numbers: HashMap<(u64, u64), Key<'_>> = HashMap::new();
    for (client, device) in &index.devices {
        for (seq, seen) in device.events() {
            let key = key_of(seen, client.user);
            let first = *numbers.entry((client.user, seq)).or_insert(key);
            finding.examine(first == key, || {
                format!("seq {seq} of {} is {} and, at {client}, {}", client.user, name(first), name(key))
            });
        }
    }
}

/// What one device sent into one conversation lies there in the order it was sent.
fn inversions(index: &Index<'_>, finding: &mut Finding) {
    let positions: HashMap<Key<'_>, u64> =
        messages(index).map(|(client, seen)| (key_of(seen, client.user), seen.position)).collect();
    for ((client, _), keys) in &index.invoked {
        let placed: Vec<_> = keys.iter().filter_map(|key| Some((*key, *positions.get(key)?))).collect();
        for pair in placed.windows(2) {
            let [(earlier, before), (later, after)] = pair else { continue };
            finding.examine(before < after, || {
                format!("{client} sent {} before {}, but {before} > {after}", name(*earlier), name(*later))
            });
        }
    }
}

/// Every message that was shown or read back, and to whom.
fn messages<'a>(index: &'a Index<'a>) -> impl Iterator<Item = (&'a ClientId, &'a Seen)> {
    let events = index.devices.iter().flat_map(|(client, device)| device.events().map(move |(_, seen)| (*client, seen)));
    let read = index.histories.iter().flat_map(|(client, history)| history.messages.iter().map(move |seen| (*client, *seen)));
    events.chain(read).filter(|(_, seen)| is_message(seen))
}

/// A hole in a mailbox, or a resume that did not go on at cursor + 1.
pub(super) fn gap(index: &Index<'_>) -> Finding {
    let mut finding = Finding::new(Checker::Gap);
    for (client, device) in &index.devices {
        for attach in &device.attaches {
            gap_within(client, attach, &mut finding);
        }
        for (reason, head) in &device.resyncs {
            // Nothing is ever taken back: a head below a cursor means that shown events are gone.
            finding.examine(*reason != "ahead", || format!("{client} was ahead of the head {head}"));
        }
    }
    finding
}

fn gap_within(client: &ClientId, attach: &Attach<'_>, finding: &mut Finding) {
    let mut last = attach.cursor;
    for step in &attach.steps {
        match *step {
            Step::Event(seq, _) => {
                // A number that came before is for `duplicate`.
                finding.examine(last.is_none_or(|last| seq <= last + 1), || {
                    format!("{client}: seq {seq} after {last:?} (cursor {:?})", attach.cursor)
                });
                last = Some(last.map_or(seq, |last| last.max(seq)));
            }
            Step::Live(head) => {
                finding.examine(last.is_none_or(|last| last >= head), || {
                    format!("{client}: live at {head}, but only {last:?} was shown")
                });
                last = Some(last.map_or(head, |last| last.max(head)));
            }
        }
    }
}
