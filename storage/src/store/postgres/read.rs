//! Reads: one statement, one snapshot, always from the primary, and always through the row of the shard. No row at all means that the shard is
//! not open there.

use protocol::record::{Event, EventBody};
use protocol::{ConversationId, Position, Seq, UserId};
use router::expand::ShardId;
use sqlx::postgres::PgRow;

use super::Inner;
use super::columns::refused;
use super::rows::{bound, damaged, get, hash, message, number, refusal, signed, unsigned};
use super::write::first;
use crate::store::{Head, KeyOf, KeyRow, PAGE_BYTES, Page, Slice, StoreError, weight};

/// Most events of one read, whatever is asked for: the reader asks again.
const EVENTS_MAX: u32 = 2048;

/// `$5` stops the reading: a record weighs at least its stored bytes, so what is left out here would not have been taken.
const READ: &str = "SELECT s.stream_epoch, coalesce(h.head, 0) AS head, coalesce(h.floor, 0) AS floor, e.seq, e.position, e.refusal, e.record \
     FROM shard s LEFT JOIN head h ON h.shard = s.shard AND h.owner = $2 \
     LEFT JOIN LATERAL (SELECT * FROM ( \
         SELECT b.seq, b.position, b.refusal, m.record, \
             sum(octet_length(m.record)) OVER (ORDER BY b.seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before \
         FROM (SELECT * FROM mailbox WHERE shard = $1 AND owner = $2 AND seq > $3 AND $3 >= h.floor ORDER BY seq LIMIT $4) b \
         LEFT JOIN message m ON m.shard = $1 AND m.conversation = b.conversation AND m.position = b.position AND b.refusal IS NULL \
     ) w WHERE coalesce(w.before, 0) <= $5) e ON true \
     WHERE s.shard = $1 AND s.state = 'open' ORDER BY e.seq";
const HISTORY: &str = "SELECT e.position, e.record FROM shard s LEFT JOIN LATERAL (SELECT * FROM ( \
         SELECT m.position, m.record, \
             sum(octet_length(m.record)) OVER (ORDER BY m.position DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before \
         FROM (SELECT * FROM message WHERE shard = $1 AND conversation = $2 AND position < $3 ORDER BY position DESC LIMIT $4) m \
     ) w WHERE coalesce(w.before, 0) <= $5) e ON true \
     WHERE s.shard = $1 AND s.state = 'open' ORDER BY e.position DESC";
const CONVERSATIONS: &str = "SELECT e.last_seq, e.position, e.record FROM shard s LEFT JOIN LATERAL ( \
         SELECT c.last_seq, m.position, m.record FROM ( \
             SELECT * FROM conversation WHERE shard = $1 AND owner = $2 AND last_seq < $3 ORDER BY last_seq DESC LIMIT $4) c \
         JOIN message m ON m.shard = $1 AND m.conversation = c.conversation AND m.position = c.last_position) e ON true \
     WHERE s.shard = $1 AND s.state = 'open' ORDER BY e.last_seq DESC";
const HEADS: &str = "SELECT coalesce(h.head, 0) AS head, coalesce(h.floor, 0) AS floor \
     FROM shard s CROSS JOIN unnest($2) WITH ORDINALITY AS t(owner, at) LEFT JOIN head h ON h.shard = s.shard AND h.owner = t.owner \
     WHERE s.shard = $1 AND s.state = 'open' ORDER BY t.at";
const LAST_POSITIONS: &str = "SELECT c.last_position \
     FROM shard s CROSS JOIN unnest($3) WITH ORDINALITY AS t(conversation, at) \
     LEFT JOIN conversation c ON c.shard = s.shard AND c.owner = $2 AND c.conversation = t.conversation \
     WHERE s.shard = $1 AND s.state = 'open' ORDER BY t.at";
const KEYS: &str = "SELECT k.owner IS NOT NULL AS known, k.seq, k.position, k.body_hash \
     FROM shard s CROSS JOIN unnest($2, $3, $4, $5, $6) WITH ORDINALITY AS t(owner, sender, id, conversation, refused, at) \
     LEFT JOIN identity_key k ON k.shard = s.shard AND k.id = t.id AND k.owner = t.owner AND k.sender = t.sender \
         AND k.conversation = t.conversation AND k.refused = t.refused \
     WHERE s.shard = $1 AND s.state = 'open' ORDER BY t.at";
const REACHED: &str = "SELECT k.seq IS NULL OR EXISTS (SELECT 1 FROM device d WHERE d.shard = s.shard AND d.owner = t.owner \
         AND d.epoch = s.stream_epoch AND d.seq >= k.seq) AS reached \
     FROM shard s CROSS JOIN unnest($2, $3, $4, $5, $6) WITH ORDINALITY AS t(owner, sender, id, conversation, refused, at) \
     LEFT JOIN identity_key k ON k.shard = s.shard AND k.id = t.id AND k.owner = t.owner AND k.sender = t.sender \
         AND k.conversation = t.conversation AND k.refused = t.refused \
     WHERE s.shard = $1 AND s.state = 'open' ORDER BY t.at";

impl Inner {
    pub(super) async fn read_now(&self, owner: UserId, after: Seq, max_events: u32, max_bytes: u32) -> Result<Slice, StoreError> {
        let shard = self.shards.of(owner);
        let rows = self
            .at(shard, || {
                let query = sqlx::query(READ).bind(i32::from(shard.0)).bind(bound(owner.get())).bind(bound(after));
                query.bind(i64::from(max_events.min(EVENTS_MAX))).bind(i64::from(max_bytes))
            })
            .await?;
        slice(&rows, after, max_bytes)
    }

    pub(super) async fn history_now(
        &self,
        reader: UserId,
        conversation: ConversationId,
        before: Position,
        limit: u32,
    ) -> Result<Page, StoreError> {
        let shard = self.shards.of(reader);
        let rows = self
            .at(shard, || {
                let query = sqlx::query(HISTORY).bind(i32::from(shard.0)).bind(conversation.key()).bind(bound(before.get()));
                query.bind(i64::from(limit) + 1).bind(PAGE_BYTES as i64)
            })
            .await?;
        let mut page = page(&rows, limit, |row| number(row, "position"))?;
        page.messages.reverse();
        Ok(page)
    }

    /// The page token is the last conversation's seq in the owner's mailbox, in the clothes of a position.
    pub(super) async fn conversations_now(&self, owner: UserId, before: Position, limit: u32) -> Result<Page, StoreError> {
        let shard = self.shards.of(owner);
        let rows = self
            .at(shard, || {
                let query = sqlx::query(CONVERSATIONS).bind(i32::from(shard.0)).bind(bound(owner.get()));
                query.bind(bound(before.get())).bind(i64::from(limit) + 1)
            })
            .await?;
        page(&rows, limit, |row| number(row, "last_seq"))
    }

    pub(super) async fn last_positions_now(
        &self,
        owner: UserId,
        conversations: &[ConversationId],
    ) -> Result<Vec<Option<Position>>, StoreError> {
        if conversations.is_empty() {
            return Ok(Vec::new());
        }
        let shard = self.shards.of(owner);
        let names: Vec<_> = conversations.iter().map(|conversation| conversation.key()).collect();
        let rows =
            self.at(shard, || sqlx::query(LAST_POSITIONS).bind(i32::from(shard.0)).bind(bound(owner.get())).bind(&names)).await?;
        let last = |row: &PgRow| {
            let position: Option<i64> = get(row, "last_position")?;
            position.map(|position| unsigned(position).map(Position::from_stored)).transpose()
        };
        rows.iter().map(last).collect()
    }

    pub(super) async fn heads_now(&self, shard: ShardId, owners: &[UserId]) -> Result<Vec<Head>, StoreError> {
        if owners.is_empty() {
            return Ok(Vec::new());
        }
        let asked: Vec<_> = owners.iter().map(|owner| bound(owner.get())).collect();
        let rows = self.at(shard, || sqlx::query(HEADS).bind(i32::from(shard.0)).bind(&asked)).await?;
        rows.iter().map(head).collect()
    }

    pub(super) async fn keys_now(&self, shard: ShardId, keys: &[KeyOf]) -> Result<Vec<Option<KeyRow>>, StoreError> {
        self.of_keys(KEYS, shard, keys).await?.iter().map(key).collect()
    }

    pub(super) async fn reached_now(&self, shard: ShardId, keys: &[KeyOf]) -> Result<Vec<bool>, StoreError> {
        self.of_keys(REACHED, shard, keys).await?.iter().map(|row| get(row, "reached")).collect()
    }

    /// A row for each key, in order.
    async fn of_keys(&self, ask: &'static str, shard: ShardId, keys: &[KeyOf]) -> Result<Vec<PgRow>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let owners: Result<Vec<_>, _> = keys.iter().map(|key| signed(key.owner.get())).collect();
        let senders: Result<Vec<_>, _> = keys.iter().map(|key| signed(key.identity.sender.get())).collect();
        let (owners, senders) = (owners?, senders?);
        let ids: Vec<_> = keys.iter().map(|key| *key.identity.id.bytes()).collect();
        let conversations: Vec<_> = keys.iter().map(|key| key.identity.conversation.key()).collect();
        let refusals: Vec<_> = keys.iter().map(refused).collect();
        self.at(shard, || {
            let query = sqlx::query(ask).bind(i32::from(shard.0)).bind(&owners).bind(&senders);
            query.bind(&ids).bind(&conversations).bind(&refusals)
        })
        .await
    }
}

fn head(row: &PgRow) -> Result<Head, StoreError> {
    Ok(Head { head: number(row, "head")?, floor: number(row, "floor")? })
}

fn key(row: &PgRow) -> Result<Option<KeyRow>, StoreError> {
    if !get::<bool>(row, "known")? {
        return Ok(None);
    }
    let seq: Option<i64> = get(row, "seq")?;
    Ok(Some(KeyRow {
        seq: seq.map(unsigned).transpose()?,
        body_hash: hash(get(row, "body_hash")?)?,
        position: Position::from_stored(number(row, "position")?),
    }))
}

fn slice(rows: &[PgRow], after: Seq, max_bytes: u32) -> Result<Slice, StoreError> {
    let top = first(rows)?;
    let mut slice = Slice { epoch: number(top, "stream_epoch")?, events: Vec::new(), head: head(top)? };
    let mut bytes = 0_u32;
    for row in rows {
        let next = after.saturating_add(slice.events.len() as u64 + 1);
        let Some(seq) = get::<Option<i64>>(row, "seq")? else { return Ok(slice) };
        if unsigned(seq)? != next {
            return Err(damaged("a mailbox has a hole"));
        }
        let body = match (get::<Option<&[u8]>>(row, "record")?, get::<Option<&[u8]>>(row, "refusal")?) {
            (_, Some(bytes)) => EventBody::Refused(refusal(bytes)?),
            (Some(record), None) => EventBody::Message(message(record, number(row, "position")?)?),
            (None, None) => return Err(damaged("an event without its body")),
        };
        bytes = bytes.saturating_add(weight(&body));
        if bytes > max_bytes && !slice.events.is_empty() {
            return Ok(slice);
        }
        slice.events.push(Event { seq: next, body });
    }
    Ok(slice)
}

/// A page, newest first. There is one row more than asked for if there is another page.
fn page(rows: &[PgRow], limit: u32, token: impl Fn(&PgRow) -> Result<u64, StoreError>) -> Result<Page, StoreError> {
    let (mut page, mut weighs, mut last) = (Page::default(), 0, None);
    for row in rows {
        let Some(record) = get::<Option<&[u8]>>(row, "record")? else { break };
        let message = message(record, number(row, "position")?)?;
        if page.messages.len() >= limit as usize || !page.has_room(&mut weighs, &message) {
            page.before = last;
            break;
        }
        last = Some(Position::from_stored(token(row)?));
        page.messages.push(message);
    }
    Ok(page)
}
