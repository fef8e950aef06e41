//! The verdict, when everything has come to rest: from the log of what devices sent and were told, what they hold, and what the mailboxes hold.

use std::collections::{BTreeMap, BTreeSet};

use protocol::codec::Encoding;
use protocol::record::{Content, Event, EventBody, Identity, Notification, Record};
use protocol::{ConversationId, UserId};
use router::expand::owners;
use router::log::{Log as _, Topic};
use storage::store::Store;

use crate::client::{Device, Sent};
use crate::world::World;

type Mailboxes = BTreeMap<UserId, Vec<Event>>;

/// Judges a world that rests; everything wrong goes to its list.
pub async fn judge(world: &World) {
    let mut mailboxes = Mailboxes::new();
    for device in &world.devices {
        let slice = world.databases.of(device.user).read(device.user, 0, u32::MAX, u32::MAX).await.unwrap_or_default();
        mailboxes.insert(device.user, slice.events);
        cursor_is_behind(world, device).await;
        holds_its_mailbox(world, device, &mailboxes[&device.user]);
    }
    for (owner, events) in &mailboxes {
        dense_and_once(world, *owner, events);
        no_phantom(world, *owner, events);
    }
    one_order(world, &mailboxes);
    for device in &world.devices {
        accepted_ends(world, device, &mailboxes);
        device_order(world, device, &mailboxes);
    }
}

/// queue: the server's cursor never passes what the device has stored.
async fn cursor_is_behind(world: &World, device: &Device) {
    let cursor = world.databases.of(device.user).cursor(device.user, &device.name, None).await.unwrap_or_default().seq;
    let stored = device.disk.lock().cursor();
    if cursor > stored {
        world.sim.wrong(format!("queue: the stored cursor of {}/{} is {cursor}; it has {stored}", device.user, device.name));
    }
}

/// lost, gap: a device that has attached once more holds exactly its mailbox.
fn holds_its_mailbox(world: &World, device: &Device, events: &[Event]) {
    let disk = device.disk.lock();
    let same = |mine: &String, theirs: &Event| *mine == on_the_wire(theirs);
    let differs = disk.events.iter().zip(events).position(|(mine, theirs)| !same(mine, theirs));
    if disk.finished && (differs.is_some() || disk.events.len() != events.len()) {
        let (mine, theirs) = (disk.events.len(), events.len());
        world.sim.wrong(format!("lost: {}/{} holds {mine} of {theirs} events, other at {differs:?}", device.user, device.name));
    }
}

/// An event as every session writes it.
fn on_the_wire(event: &Event) -> String {
    let mut bytes = Vec::new();
    Encoding::Json.event(event, &mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// unnotified: of everything that came for somebody who was away all the time, somebody was told who wakes phones; once or more often.
pub async fn notified(world: &World) {
    let told = world.log.read(Topic::Notifications, 0, 0, usize::MAX).await.unwrap_or_default();
    let told: Vec<_> = told.iter().filter_map(|entry| Notification::decode(&entry.payload).ok()).collect();
    let times = |event: &Event| {
        let to = |one: &&Notification| one.owner == world.sleeper && one.position == event.body.position();
        message_of(event)
            .map(|record| (record.identity, told.iter().filter(to).filter(|one| one.identity == record.identity).count()))
    };
    let slice = world.databases.of(world.sleeper).read(world.sleeper, 0, u32::MAX, u32::MAX).await.unwrap_or_default();
    for (identity, times) in slice.events.iter().filter_map(times) {
        match times {
            0 => world.sim.wrong(format!("unnotified: nobody was told of {} for {}", identity.id, world.sleeper)),
            1 => world.sim.saw("notification of a message for who is away"),
            _ => world.sim.saw("notification repeated"),
        }
    }
}

fn message_of(event: &Event) -> Option<&Record> {
    match &event.body {
        EventBody::Message(message) => Some(&message.record),
        EventBody::Refused(_) => None,
    }
}

/// duplicate, order: a mailbox is dense; a message is in it once; a refusal of one body once.
fn dense_and_once(world: &World, owner: UserId, events: &[Event]) {
    let mut seen = BTreeSet::new();
    for (event, seq) in events.iter().zip(1..) {
        if event.seq != seq {
            world.sim.wrong(format!("order: event {} of {owner} stands at {seq}", event.seq));
        }
        let what = match &event.body {
            EventBody::Message(message) => (message.record.identity, None),
            EventBody::Refused(refusal) => (refusal.identity, Some(refusal.body_hash.0)),
        };
        if !seen.insert(what) {
            world.sim.wrong(format!("duplicate: {seq} of {owner}: {}", on_the_wire(event)));
        }
    }
}

fn sent_by(world: &World, user: UserId) -> Vec<Sent> {
    world.devices.iter().filter(|device| device.user == user).flat_map(|device| device.disk.lock().sent.clone()).collect()
}

/// phantom: everything delivered was sent so, to somebody who is in the conversation.
fn no_phantom(world: &World, owner: UserId, events: &[Event]) {
    let mut sent = BTreeMap::new();
    for event in events {
        let Some(record) = message_of(event) else { continue };
        let Identity { sender, conversation, id } = record.identity;
        let all = sent.entry(sender).or_insert_with(|| sent_by(world, sender));
        let Content::Text(text) = &record.content;
        let known = all.iter().any(|one| one.id == id && one.conversation == conversation && one.text == *text);
        if !known || !conversation.has(owner) || !conversation.has(sender) {
            world.sim.wrong(format!("phantom: {} of {owner}: {}", event.seq, on_the_wire(event)));
        }
    }
}

fn of_conversation(events: &[Event], conversation: ConversationId) -> Vec<&Event> {
    events.iter().filter(|event| message_of(event).is_some_and(|record| record.identity.conversation == conversation)).collect()
}

/// order, lost: positions ascend in every mailbox, and all members have the same messages at the same positions.
fn one_order(world: &World, mailboxes: &Mailboxes) {
    let conversations: BTreeSet<_> = mailboxes.values().flatten().map(|event| event.body.conversation()).collect();
    for conversation in conversations {
        let mut views = owners(conversation).into_iter().filter_map(|owner| mailboxes.get(&owner)).map(|events| {
            let bodies: Vec<_> = of_conversation(events, conversation).into_iter().map(|event| &event.body).collect();
            if !bodies.is_sorted_by(|one, next| one.position() < next.position()) {
                world.sim.wrong(format!("order: positions of {conversation} do not ascend"));
            }
            bodies
        });
        if let (Some(one), Some(other)) = (views.next(), views.next())
            && one != other
        {
            world.sim.wrong(format!(
                "order: the members of {conversation} see {} and {} messages, not the same",
                one.len(),
                other.len()
            ));
        }
    }
}

/// lost, silent: what was accepted is in every mailbox it belongs in, or refused in its sender's.
fn accepted_ends(world: &World, device: &Device, mailboxes: &Mailboxes) {
    let disk = device.disk.lock();
    for sent in disk.sent.iter().filter(|sent| sent.accepted) {
        let identity = Identity { sender: device.user, conversation: sent.conversation, id: sent.id };
        let record = Record { identity, content: Content::Text(sent.text.clone()), reply_to: None, at_ms: 0 };
        let hash = record.body_hash();
        let refused = mailboxes[&device.user].iter().any(|event| match &event.body {
            EventBody::Refused(refusal) => refusal.identity == identity && refusal.body_hash == hash,
            EventBody::Message(_) => false,
        });
        let holds = |owner: &UserId| {
            let mut records = mailboxes[owner].iter().filter_map(message_of);
            records.any(|there| there.identity == identity && there.content == record.content)
        };
        let missing = owners(sent.conversation).into_iter().filter(|owner| !holds(owner)).count();
        match (sent.reuse, refused, missing) {
            (true, true, _) | (false, false, 0) => {}
            (false, true, _) => world.sim.wrong(format!("refused: \"{}\" was the first of its id", sent.text)),
            (_, false, missing) => {
                world.sim.wrong(format!("lost: \"{}\" ({}) was accepted and is missing {missing} times", sent.text, sent.id));
            }
        }
    }
    if !disk.is_settled() {
        world.sim.wrong(format!("silent: sends of {}/{} were never answered", device.user, device.name));
    }
}

/// order: what one device sent into one conversation stands in the order of sending.
fn device_order(world: &World, device: &Device, mailboxes: &Mailboxes) {
    let disk = device.disk.lock();
    let first: BTreeMap<_, _> =
        disk.sent.iter().enumerate().filter(|(_, sent)| !sent.reuse).map(|(at, sent)| (sent.id, at)).collect();
    let conversations: BTreeSet<_> = disk.sent.iter().map(|sent| sent.conversation).collect();
    for conversation in conversations {
        let events = of_conversation(&mailboxes[&device.user], conversation);
        let mine = events.into_iter().filter_map(message_of).filter(|record| record.identity.sender == device.user);
        let order: Vec<_> = mine.filter_map(|record| first.get(&record.identity.id)).collect();
        if !order.is_sorted() {
            world
                .sim
                .wrong(format!("order: {}/{} sent into {conversation} in another order: {order:?}", device.user, device.name));
        }
    }
}
