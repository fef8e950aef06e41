//! The store of the simulation: in memory, durable for as long as one handle lives, so that it survives the "processes" that crash around it.
//! One mutex makes every commit atomic and every read a snapshot.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use protocol::limits::UNREAD_MAX;
use protocol::plant::{Bug, planted};
use protocol::receipt::{Marks, Receipt};
use protocol::record::{Event, EventBody, Link, Message, Source};
use protocol::{ConversationId, DeviceName, Position, Seq, UserId};
use router::expand::{ShardId, owners};

use super::{
    Acquired, Checkpoint, Commit, Cursor, Cutoff, DELIVERED_ROWS, Delivered, Head, HighWater, KeyOf, KeyRow, Page, Place,
    Retained, Seen, Slice, Standing, Store, StoreError, UNREAD_ROWS,
};
use crate::receipt::ReceiptKey;

#[derive(Debug, Clone, Default)]
struct Shard {
    checkpoint: Checkpoint,
    fingerprint: u64,
    followed: u64,
    high_waters: BTreeMap<Source, Link>,
}

#[derive(Debug, Clone, Default)]
struct Mailbox {
    head: Head,
    /// Those after the floor, dense.
    events: VecDeque<Event>,
}

#[derive(Debug, Clone)]
struct State {
    shards: BTreeMap<ShardId, Shard>,
    mailboxes: BTreeMap<UserId, Mailbox>,
    keys: BTreeMap<KeyOf, KeyRow>,
    cursors: BTreeMap<(UserId, DeviceName), Seq>,
    receipts: BTreeMap<ReceiptKey, (Marks, u64)>,
    through: BTreeMap<UserId, Seq>,
    seen: BTreeMap<(UserId, DeviceName), u64>,
    stream_epoch: u64,
}

/// A handle to one store; clones share it.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        let state = State {
            shards: BTreeMap::new(),
            mailboxes: BTreeMap::new(),
            keys: BTreeMap::new(),
            cursors: BTreeMap::new(),
            receipts: BTreeMap::new(),
            through: BTreeMap::new(),
            seen: BTreeMap::new(),
            stream_epoch: 1,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Another store that begins as this one is now: a backup, or the copy of a move.
    #[must_use]
    pub fn copied(&self) -> Self {
        Self { state: Arc::new(Mutex::new(self.state.lock().clone())) }
    }

    /// What a restore from another copy may mean for clients: every mailbox is numbered otherwise (here by conversation), in a new stream
    /// epoch, and every device begins at 0.
    pub fn renumber(&self) {
        let mut state = self.state.lock();
        let state = &mut *state;
        state.stream_epoch += 1;
        state.cursors.values_mut().for_each(|seq| *seq = 0);
        state.through.clear();
        for (owner, mailbox) in &mut state.mailboxes {
            let floor = mailbox.head.floor;
            mailbox.events.make_contiguous().sort_by_key(|event| (event.body.conversation(), event.body.position()));
            for (event, seq) in mailbox.events.iter_mut().zip(floor + 1..) {
                event.seq = seq;
                if let Some(row) = state.keys.get_mut(&key_of(*owner, &event.body)) {
                    row.seq = Some(seq);
                }
            }
        }
    }
}

fn key_of(owner: UserId, body: &EventBody) -> KeyOf {
    match body {
        EventBody::Message(message) => KeyOf { owner, identity: message.record.identity, refused: None },
        EventBody::Refused(refusal) => KeyOf { owner, identity: refusal.identity, refused: Some(refusal.body_hash.0) },
    }
}

impl State {
    /// What stands against a commit, or nothing.
    fn check(&self, shard: ShardId, commit: &Commit) -> Result<(), StoreError> {
        let fenced = StoreError::Fenced(shard.0);
        if self.shards.get(&shard).map(|shard| shard.checkpoint).unwrap_or_default() != commit.expect {
            return Err(fenced);
        }
        let mut new = BTreeSet::new();
        if commit.keys.iter().any(|(key, _)| self.keys.contains_key(key) || !new.insert(*key)) {
            return Err(StoreError::Conflict(shard.0));
        }
        let mut heads = BTreeMap::new();
        for row in &commit.rows {
            let head = heads.entry(row.owner).or_insert_with(|| self.head(row.owner).head);
            *head += 1;
            if row.event.seq != *head {
                return Err(fenced);
            }
        }
        Ok(())
    }

    fn head(&self, owner: UserId) -> Head {
        self.mailboxes.get(&owner).map(|mailbox| mailbox.head).unwrap_or_default()
    }

    fn apply(&mut self, shard: ShardId, commit: Commit) {
        let state = self.shards.entry(shard).or_default();
        state.checkpoint.offset = commit.next_offset;
        state.fingerprint = commit.fingerprint;
        state.high_waters.extend(commit.high_waters.iter().map(|one| (one.source, one.link)));
        for row in commit.rows {
            self.mailboxes.entry(row.owner).or_default().put(row.event);
        }
        self.keys.extend(commit.keys);
        for row in commit.receipts {
            let (conversation, member) = (row.receipt.conversation, row.receipt.member);
            let key = ReceiptKey { owner: row.owner, conversation, member };
            self.receipts.insert(key, (row.receipt.marks, row.receipt.rev));
        }
        for (member, seq) in commit.through {
            let told = self.through.entry(member).or_default();
            *told = seq.max(*told);
        }
    }

    fn standing(&self, owner: UserId, conversation: ConversationId) -> Standing {
        let marks = |member| self.receipts.get(&ReceiptKey { owner, conversation, member }).map(|row| row.0).unwrap_or_default();
        let read = marks(owner).read;
        let others = owners(conversation).into_iter().filter(|member| *member != owner);
        let behind = self.messages(owner).map(|(_, message)| message);
        let behind = behind.filter(|message| message.record.identity.conversation == conversation && message.position > read);
        let unread = behind.take(UNREAD_ROWS).filter(|message| message.record.identity.sender != owner).count();
        Standing {
            unread: u32::try_from(unread).unwrap_or(UNREAD_MAX).min(UNREAD_MAX),
            read,
            others: others.map(|member| (member, marks(member))).collect(),
        }
    }

    /// Messages of one mailbox with their seqs, newest first. Positions of different conversations may be equal and do not compare.
    fn messages(&self, owner: UserId) -> impl Iterator<Item = (Seq, &Arc<Message>)> {
        let events = self.mailboxes.get(&owner).into_iter().flat_map(|mailbox| mailbox.events.iter().rev());
        events.filter_map(|event| match &event.body {
            EventBody::Message(message) => Some((event.seq, message)),
            EventBody::Refused(_) => None,
        })
    }
}

impl Mailbox {
    fn put(&mut self, event: Event) {
        // in its place: only a planted bug writes over what is there
        match event.seq.checked_sub(self.head.floor + 1).and_then(|at| usize::try_from(at).ok()) {
            Some(at) if at < self.events.len() => self.events[at] = event,
            _ => {
                self.head.head = event.seq;
                self.events.push_back(event);
            }
        }
    }

    fn read(&self, after: Seq, max_events: u32, max_bytes: u32) -> Vec<Event> {
        let Some(skip) = after.checked_sub(self.head.floor) else { return Vec::new() };
        let (mut events, mut bytes) = (Vec::new(), 0_u32);
        for event in self.events.iter().skip(usize::try_from(skip).unwrap_or(usize::MAX)).take(max_events as usize) {
            bytes = bytes.saturating_add(super::weight(&event.body));
            if bytes > max_bytes && !events.is_empty() {
                break;
            }
            events.push(event.clone());
        }
        events
    }
}

fn at_ms(body: &EventBody) -> u64 {
    match body {
        EventBody::Message(message) => message.record.at_ms,
        EventBody::Refused(refusal) => refusal.at_ms,
    }
}

fn message_of(event: &Event) -> Option<(ConversationId, Position)> {
    matches!(event.body, EventBody::Message(_)).then(|| (event.body.conversation(), event.body.position()))
}

/// The newest `limit` of these, newest first, each with its token, and where the next page continues.
fn newest<'a>(messages: impl Iterator<Item = (Position, &'a Arc<Message>)>, limit: u32) -> Page {
    let (mut page, mut weighs, mut last) = (Page::default(), 0, None);
    for (token, message) in messages {
        if page.messages.len() >= limit as usize || !page.has_room(&mut weighs, message) {
            page.before = last;
            break;
        }
        last = Some(token);
        page.messages.push(Arc::clone(message));
    }
    page
}

#[async_trait]
impl Store for MemoryStore {
    async fn acquire(&self, shard: ShardId) -> Result<Acquired, StoreError> {
        let mut state = self.state.lock();
        let stream_epoch = state.stream_epoch;
        let shard = state.shards.entry(shard).or_default();
        shard.checkpoint.owner_epoch += 1;
        let high_waters = shard.high_waters.iter().map(|(source, link)| HighWater { source: *source, link: *link }).collect();
        Ok(Acquired { checkpoint: shard.checkpoint, fingerprint: shard.fingerprint, stream_epoch, high_waters })
    }

    async fn checkpoint(&self, shard: ShardId) -> Result<Checkpoint, StoreError> {
        Ok(self.state.lock().shards.get(&shard).map(|shard| shard.checkpoint).unwrap_or_default())
    }

    async fn commit(&self, shard: ShardId, commit: Commit) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        if !planted(Bug::NoFence) {
            state.check(shard, &commit)?;
        }
        state.apply(shard, commit);
        Ok(())
    }

    async fn followed(&self, shard: ShardId) -> Result<u64, StoreError> {
        Ok(self.state.lock().shards.get(&shard).map_or(0, |shard| shard.followed))
    }

    async fn save_followed(&self, shard: ShardId, offset: u64) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        let followed = &mut state.shards.entry(shard).or_default().followed;
        *followed = offset.max(*followed);
        Ok(())
    }

    async fn keys(&self, _shard: ShardId, keys: &[KeyOf]) -> Result<Vec<Option<KeyRow>>, StoreError> {
        let state = self.state.lock();
        Ok(keys.iter().map(|key| state.keys.get(key).copied()).collect())
    }

    async fn reached(&self, _shard: ShardId, keys: &[KeyOf]) -> Result<Vec<bool>, StoreError> {
        let state = self.state.lock();
        let reached = |key: &KeyOf| {
            let Some(seq) = state.keys.get(key).and_then(|row| row.seq) else { return true };
            state.cursors.iter().any(|((owner, _), at)| *owner == key.owner && *at >= seq)
        };
        Ok(keys.iter().map(reached).collect())
    }

    async fn heads(&self, _shard: ShardId, owners: &[UserId]) -> Result<Vec<Head>, StoreError> {
        let state = self.state.lock();
        Ok(owners.iter().map(|owner| state.head(*owner)).collect())
    }

    async fn read(&self, owner: UserId, after: Seq, max_events: u32, max_bytes: u32) -> Result<Slice, StoreError> {
        let state = self.state.lock();
        let epoch = state.stream_epoch;
        let Some(mailbox) = state.mailboxes.get(&owner) else { return Ok(Slice { epoch, ..Slice::default() }) };
        Ok(Slice { epoch, events: mailbox.read(after, max_events, max_bytes), head: mailbox.head })
    }

    async fn history(
        &self,
        reader: UserId,
        conversation: ConversationId,
        before: Position,
        limit: u32,
    ) -> Result<Page, StoreError> {
        let state = self.state.lock();
        let messages = state.messages(reader).map(|(_, message)| (message.position, message));
        let older =
            messages.filter(|(position, message)| message.record.identity.conversation == conversation && *position < before);
        let older: BTreeMap<_, _> = older.collect();
        let mut page = newest(older.into_iter().rev(), limit);
        page.messages.reverse();
        Ok(page)
    }

    async fn conversations(&self, owner: UserId, before: Position, limit: u32) -> Result<Page, StoreError> {
        let state = self.state.lock();
        let mut seen = BTreeSet::new();
        let last = state.messages(owner).filter(|(_, message)| seen.insert(message.record.identity.conversation));
        // the page token is the seq in this mailbox
        let last = last.map(|(seq, message)| (Position::from_stored(seq), message));
        Ok(newest(last.filter(|(token, _)| *token < before), limit))
    }

    async fn cursor(&self, owner: UserId, device: &DeviceName, says: Option<Seq>) -> Result<Place, StoreError> {
        let mut state = self.state.lock();
        let epoch = state.stream_epoch;
        let born_at = says.unwrap_or(state.head(owner).head);
        let seq = *state.cursors.entry((owner, device.clone())).or_insert(born_at);
        Ok(Place { epoch, seq })
    }

    async fn save_cursors(&self, cursors: &[Cursor]) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        for cursor in cursors {
            if cursor.epoch != state.stream_epoch && !planted(Bug::CursorWithoutEpoch) {
                continue;
            }
            let seq = state.cursors.entry((cursor.owner, cursor.device.clone())).or_insert(cursor.seq);
            *seq = cursor.seq.max(*seq);
        }
        Ok(())
    }

    async fn newest(&self, owners: &[UserId]) -> Result<Vec<Option<Place>>, StoreError> {
        let state = self.state.lock();
        let epoch = state.stream_epoch;
        Ok(owners.iter().map(|owner| Some(Place { epoch, seq: state.head(*owner).head })).collect())
    }

    fn known_epoch(&self, _owner: UserId) -> u64 {
        self.state.lock().stream_epoch
    }

    async fn receipts(&self, _shard: ShardId, keys: &[ReceiptKey]) -> Result<Vec<Option<Marks>>, StoreError> {
        let state = self.state.lock();
        Ok(keys.iter().map(|key| state.receipts.get(key).map(|row| row.0)).collect())
    }

    async fn receipts_since(&self, owner: UserId, rev: u64, limit: u32) -> Result<Vec<Receipt>, StoreError> {
        let state = self.state.lock();
        let rows = state.receipts.iter().filter(|(key, row)| key.owner == owner && row.1 > rev);
        let receipt = |(key, row): (&ReceiptKey, &(Marks, u64))| Receipt {
            conversation: key.conversation,
            member: key.member,
            marks: row.0,
            rev: row.1,
        };
        let mut receipts: Vec<_> = rows.map(receipt).collect();
        receipts.sort_unstable_by_key(|receipt| receipt.rev);
        receipts.truncate(limit as usize);
        Ok(receipts)
    }

    async fn delivered(&self, owner: UserId, acknowledged: Place, after: Seq) -> Result<Option<Delivered>, StoreError> {
        let state = self.state.lock();
        let told = state.through.get(&owner).copied().unwrap_or(0).max(after);
        let head = state.head(owner);
        let from = told.max(head.floor);
        let through = acknowledged.seq.min(head.head).min(from + DELIVERED_ROWS as u64);
        if acknowledged.epoch != state.stream_epoch || through <= told {
            return Ok(None);
        }
        let mut newest = BTreeMap::new();
        for (_, message) in state.messages(owner).filter(|(seq, _)| (from + 1..=through).contains(seq)) {
            if message.record.identity.sender != owner {
                newest.entry(message.record.identity.conversation).or_insert(message.position);
            }
        }
        Ok(Some(Delivered { through, newest: newest.into_iter().collect() }))
    }

    async fn last_positions(&self, owner: UserId, conversations: &[ConversationId]) -> Result<Vec<Option<Position>>, StoreError> {
        let state = self.state.lock();
        let last = |conversation: &ConversationId| {
            let of = |message: &&Arc<Message>| message.record.identity.conversation == *conversation;
            state.messages(owner).map(|(_, message)| message).find(of).map(|message| message.position)
        };
        Ok(conversations.iter().map(last).collect())
    }

    async fn standings(&self, owner: UserId, conversations: &[ConversationId]) -> Result<Vec<Standing>, StoreError> {
        let state = self.state.lock();
        Ok(conversations.iter().map(|conversation| state.standing(owner, *conversation)).collect())
    }

    async fn save_seen(&self, seen: &[Seen]) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        for one in seen {
            let at_ms = state.seen.entry((one.owner, one.device.clone())).or_default();
            *at_ms = one.at_ms.max(*at_ms);
        }
        Ok(())
    }

    async fn last_seen(&self, users: &[UserId]) -> Result<Vec<Option<u64>>, StoreError> {
        let state = self.state.lock();
        let last = |user: &UserId| state.seen.iter().filter(|((owner, _), _)| owner == user).map(|(_, at_ms)| *at_ms).max();
        Ok(users.iter().map(last).collect())
    }

    async fn retain(&self, cutoff: Cutoff) -> Result<Retained, StoreError> {
        let mut state = self.state.lock();
        let (mut retained, mut removed) = (Retained::default(), BTreeSet::new());
        for mailbox in state.mailboxes.values_mut() {
            while mailbox.events.front().is_some_and(|event| at_ms(&event.body) < cutoff.events_before_ms) {
                removed.extend(mailbox.events.pop_front().as_ref().and_then(message_of));
                mailbox.head.floor += 1;
                retained.events += 1;
            }
        }
        for event in state.mailboxes.values().flat_map(|mailbox| &mailbox.events) {
            if let Some(kept) = message_of(event) {
                removed.remove(&kept);
            }
        }
        retained.messages = removed.len() as u64;
        let before = state.keys.len();
        state.keys.retain(|key, _| key.identity.id.time_ms() >= cutoff.keys_before_ms);
        retained.keys = (before - state.keys.len()) as u64;
        Ok(retained)
    }
}
