//! Lost, silent, phantom: what was sent against what was shown.

use std::collections::{BTreeMap, HashSet};

use super::index::{Index, Key, is_message, key_of};
use super::{Checker, Finding};
use crate::frame::{EventKind, members};
use crate::record::{ClientId, Seen};

/// Accepted, but absent from a device that is entitled to it or from a history that was read to its beginning.
pub(super) fn lost(index: &Index<'_>) -> Finding {
    let mut finding = Finding::new(Checker::Lost);
    let mailboxes: BTreeMap<_, _> = index
        .devices
        .iter()
        .filter(|(_, device)| device.is_entitled())
        .map(|(client, device)| (*client, keys(client, device.events().map(|(_, seen)| seen), EventKind::Message)))
        .collect();
    let histories: BTreeMap<_, _> = index
        .histories
        .iter()
        .map(|(client, history)| (*client, keys(client, history.messages.iter().copied(), EventKind::Message)))
        .collect();
    let refused = refused_later(index);
    let mut accepted: Vec<_> = index.accepted().filter(|key| !refused.contains(key)).collect();
    accepted.sort_unstable();
    for key in accepted {
        let entitled = |client: &ClientId| members(key.1).is_some_and(|users| users.contains(&client.user));
        let blind = mailboxes.iter().filter(|(client, shown)| entitled(client) && !shown.contains(&key));
        let blind: Vec<_> = blind.map(|(client, _)| client.to_string()).collect();
        let forgotten = index.histories.iter().filter(|(client, history)| {
            history.ended.contains(key.1) && histories.get(*client).is_some_and(|read| !read.contains(&key))
        });
        let forgotten: Vec<_> = forgotten.map(|(client, _)| client.to_string()).collect();
        finding.examine(blind.is_empty() && forgotten.is_empty(), || {
            format!("{} absent from mailboxes {blind:?}, from history of {forgotten:?}", name(key))
        });
    }
    finding
}

/// A send with neither a final answer nor an event at the end.
pub(super) fn silent(index: &Index<'_>) -> Finding {
    let mut finding = Finding::new(Checker::Silent);
    let mut shown: HashSet<Key<'_>> = HashSet::new();
    for (client, device) in &index.devices {
        shown.extend(device.events().map(|(_, seen)| key_of(seen, client.user)));
    }
    for (key, sent) in &index.sends {
        let answered = sent.accepted || sent.refused.is_some() || shown.contains(key);
        finding.examine(answered, || format!("{} of {}", name(*key), sent.client));
    }
    finding
}

/// Shown but never sent, with another body, to a non-member, or after a final refusal.
pub(super) fn phantom(index: &Index<'_>) -> Finding {
    let mut finding = Finding::new(Checker::Phantom);
    let events = index.devices.iter().flat_map(|(client, device)| device.events().map(move |(_, seen)| (*client, seen)));
    let read = index.histories.iter().flat_map(|(client, history)| history.messages.iter().map(move |seen| (*client, *seen)));
    for (client, seen) in events.chain(read) {
        let fault = fault_of(index, client, seen);
        finding.examine(fault.is_none(), || {
            format!("{} at {client}: {}", name(key_of(seen, client.user)), fault.unwrap_or_default())
        });
    }
    finding
}

fn fault_of(index: &Index<'_>, client: &ClientId, seen: &Seen) -> Option<&'static str> {
    let Some(sent) = index.sends.get(&key_of(seen, client.user)) else { return Some("never sent") };
    if !members(&seen.conversation).is_some_and(|users| users.contains(&client.user)) {
        return Some("shown to a non-member");
    }
    // `id_reused` refuses the second attempt; the first one stands.
    let withdrawn = sent.refused.is_some_and(|code| code != "id_reused") && !sent.accepted;
    match is_message(seen) {
        true if sent.text != seen.text => Some("another body"),
        true if withdrawn => Some("shown though finally refused"),
        _ => None,
    }
}

/// Messages whose sender was told of a refusal after `accepted`.
fn refused_later<'a>(index: &Index<'a>) -> HashSet<Key<'a>> {
    let mut refused = HashSet::new();
    for (client, device) in &index.devices {
        refused.extend(keys(client, device.events().map(|(_, seen)| seen), EventKind::Refused));
    }
    refused
}

fn keys<'a>(client: &ClientId, seen: impl Iterator<Item = &'a Seen>, kind: EventKind) -> HashSet<Key<'a>> {
    seen.filter(|seen| seen.event == kind).map(|seen| key_of(seen, client.user)).collect()
}

/// The identity for people.
pub(super) fn name(key: Key<'_>) -> String {
    format!("{}@{} {}", key.0, key.1, key.2)
}
