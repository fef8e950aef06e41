//! The stored form of records: Protobuf messages. Fields are added with new tags; a tag is never reused, a meaning never changed.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;

use super::{
    BodyHash, Content, Event, EventBody, Identity, Link, MailboxRecord, Message, Notification, Record, Refusal, ReplyTo, Source,
    Verdict,
};
use crate::error_code::ErrorCode;
use crate::id::{ConversationId, MessageId, Position, UserId};

/// Stored bytes that this build cannot read. A partition that meets them stops, named; it never guesses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Undecodable {
    /// Not Protobuf, or cut short.
    #[error("stored bytes are damaged: {0}")]
    Damaged(#[from] prost::DecodeError),
    /// A field that must be there is missing or wrong.
    #[error("a stored record has no valid {0}")]
    Field(&'static str),
}

impl Undecodable {
    /// Whether these bytes are nobody's record, in this build and in every other: damaged, or without so much as an identity or a link. They can be
    /// left out. Whatever else is missing may be there for a newer build, and then its partition waits for that build.
    pub const fn is_garbage(&self) -> bool {
        match self {
            Self::Damaged(_) => true,
            Self::Field(field) => matches!(field.as_bytes(), b"identity" | b"id" | b"source" | b"link"),
        }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireReply {
    #[prost(uint64, tag = "1")]
    from: u64,
    #[prost(bytes = "vec", tag = "2")]
    id: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireIdentity {
    #[prost(uint64, tag = "1")]
    sender: u64,
    #[prost(bytes = "vec", tag = "2")]
    conversation: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    id: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum WireContent {
    #[prost(string, tag = "3")]
    Text(String),
}

/// What is hashed: everything of a record that must be equal in a retry.
#[derive(Clone, PartialEq, prost::Message)]
struct WireBody {
    #[prost(message, optional, tag = "2")]
    reply_to: Option<WireReply>,
    #[prost(oneof = "WireContent", tags = "3")]
    content: Option<WireContent>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireRecord {
    #[prost(message, optional, tag = "1")]
    identity: Option<WireIdentity>,
    #[prost(message, optional, tag = "2")]
    body: Option<WireBody>,
    #[prost(uint64, tag = "3")]
    at_ms: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireRefusal {
    #[prost(message, optional, tag = "1")]
    identity: Option<WireIdentity>,
    #[prost(uint64, tag = "2")]
    position: u64,
    #[prost(bytes = "vec", tag = "3")]
    body_hash: Vec<u8>,
    #[prost(string, tag = "4")]
    code: String,
    #[prost(uint64, tag = "5")]
    at_ms: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireDeliver {
    #[prost(message, optional, tag = "1")]
    record: Option<WireRecord>,
    #[prost(uint64, repeated, tag = "2")]
    owners: Vec<u64>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum WireVerdict {
    #[prost(message, tag = "7")]
    Deliver(WireDeliver),
    #[prost(message, tag = "8")]
    Refuse(WireRefusal),
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireMailboxRecord {
    #[prost(uint32, tag = "1")]
    partition: u32,
    #[prost(uint32, tag = "2")]
    epoch: u32,
    #[prost(uint64, tag = "3")]
    next_offset: u64,
    #[prost(fixed64, tag = "4")]
    digest: u64,
    #[prost(uint64, tag = "5")]
    previous_next_offset: u64,
    #[prost(fixed64, tag = "6")]
    previous_digest: u64,
    #[prost(oneof = "WireVerdict", tags = "7, 8")]
    verdict: Option<WireVerdict>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireMessage {
    #[prost(message, optional, tag = "1")]
    record: Option<WireRecord>,
    #[prost(uint64, tag = "2")]
    position: u64,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum WireWhat {
    #[prost(message, tag = "1")]
    Message(WireMessage),
    #[prost(message, tag = "2")]
    Refused(WireRefusal),
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireEventBody {
    #[prost(oneof = "WireWhat", tags = "1, 2")]
    what: Option<WireWhat>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireEvent {
    #[prost(uint64, tag = "1")]
    seq: u64,
    #[prost(message, optional, tag = "2")]
    body: Option<WireEventBody>,
}

fn to_identity(identity: &Identity) -> WireIdentity {
    WireIdentity {
        sender: identity.sender.get(),
        conversation: identity.conversation.key().to_vec(),
        id: identity.id.bytes().to_vec(),
    }
}

fn from_identity(wire: Option<WireIdentity>) -> Result<Identity, Undecodable> {
    let wire = wire.filter(|wire| !wire.conversation.is_empty()).ok_or(Undecodable::Field("identity"))?;
    Ok(Identity {
        sender: UserId::from_stored(wire.sender),
        conversation: ConversationId::from_key(&wire.conversation).ok_or(Undecodable::Field("conversation"))?,
        id: MessageId::from_stored(&wire.id).ok_or(Undecodable::Field("id"))?,
    })
}

fn to_body(record: &Record) -> WireBody {
    let Content::Text(text) = &record.content;
    WireBody {
        reply_to: record.reply_to.map(|reply| WireReply { from: reply.from.get(), id: reply.id.bytes().to_vec() }),
        content: Some(WireContent::Text(text.clone())),
    }
}

pub(super) fn body_bytes(record: &Record) -> Vec<u8> {
    to_body(record).encode_to_vec()
}

fn to_record(record: &Record) -> WireRecord {
    WireRecord { identity: Some(to_identity(&record.identity)), body: Some(to_body(record)), at_ms: record.at_ms }
}

fn from_record(wire: WireRecord) -> Result<Record, Undecodable> {
    let identity = from_identity(wire.identity)?;
    let body = wire.body.ok_or(Undecodable::Field("body"))?;
    let WireContent::Text(text) = body.content.ok_or(Undecodable::Field("content"))?;
    let reply_to = body.reply_to.map(|reply| {
        let id = MessageId::from_stored(&reply.id).ok_or(Undecodable::Field("reply_to"))?;
        Ok::<_, Undecodable>(ReplyTo { from: UserId::from_stored(reply.from), id })
    });
    Ok(Record { identity, content: Content::Text(text), reply_to: reply_to.transpose()?, at_ms: wire.at_ms })
}

pub(super) fn encode_record(record: &Record) -> Bytes {
    to_record(record).encode_to_vec().into()
}

pub(super) fn decode_record(bytes: &[u8]) -> Result<Record, Undecodable> {
    from_record(WireRecord::decode(bytes)?)
}

fn to_refusal(refusal: &Refusal) -> WireRefusal {
    WireRefusal {
        identity: Some(to_identity(&refusal.identity)),
        position: refusal.position.get(),
        body_hash: refusal.body_hash.0.to_be_bytes().to_vec(),
        code: refusal.code.name().to_owned(),
        at_ms: refusal.at_ms,
    }
}

fn from_refusal(wire: WireRefusal) -> Result<Refusal, Undecodable> {
    let hash = wire.body_hash.as_slice().try_into().map_err(|_| Undecodable::Field("body_hash"))?;
    let code = ErrorCode::ALL.into_iter().find(|code| code.name() == wire.code);
    Ok(Refusal {
        identity: from_identity(wire.identity)?,
        position: Position::from_stored(wire.position),
        body_hash: BodyHash(u128::from_be_bytes(hash)),
        code: code.ok_or(Undecodable::Field("code"))?,
        at_ms: wire.at_ms,
    })
}

pub(super) fn encode_refusal(refusal: &Refusal) -> Bytes {
    to_refusal(refusal).encode_to_vec().into()
}

pub(super) fn decode_refusal(bytes: &[u8]) -> Result<Refusal, Undecodable> {
    from_refusal(WireRefusal::decode(bytes)?)
}

pub(super) fn encode_mailbox_record(record: &MailboxRecord) -> Bytes {
    let verdict = match &record.verdict {
        Verdict::Deliver(inner, owners) => WireVerdict::Deliver(WireDeliver {
            record: Some(to_record(inner)),
            owners: owners.iter().map(|owner| owner.get()).collect(),
        }),
        Verdict::Refuse(refusal) => WireVerdict::Refuse(to_refusal(refusal)),
    };
    let wire = WireMailboxRecord {
        partition: record.source.partition.into(),
        epoch: record.source.epoch.into(),
        next_offset: record.link.next_offset,
        digest: record.link.digest,
        previous_next_offset: record.previous.next_offset,
        previous_digest: record.previous.digest,
        verdict: Some(verdict),
    };
    wire.encode_to_vec().into()
}

pub(super) fn decode_mailbox_record(bytes: &[u8]) -> Result<MailboxRecord, Undecodable> {
    let wire = WireMailboxRecord::decode(bytes)?;
    if wire.next_offset == 0 {
        return Err(Undecodable::Field("link"));
    }
    let verdict = match wire.verdict.ok_or(Undecodable::Field("verdict"))? {
        WireVerdict::Deliver(deliver) => Verdict::Deliver(
            from_record(deliver.record.ok_or(Undecodable::Field("record"))?)?,
            deliver.owners.into_iter().map(UserId::from_stored).collect(),
        ),
        WireVerdict::Refuse(refusal) => Verdict::Refuse(from_refusal(refusal)?),
    };
    let short = |number: u32, name| u16::try_from(number).map_err(|_| Undecodable::Field(name));
    Ok(MailboxRecord {
        source: Source { partition: short(wire.partition, "partition")?, epoch: short(wire.epoch, "epoch")? },
        link: Link { next_offset: wire.next_offset, digest: wire.digest },
        previous: Link { next_offset: wire.previous_next_offset, digest: wire.previous_digest },
        verdict,
    })
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireNotification {
    #[prost(uint64, tag = "1")]
    owner: u64,
    #[prost(message, optional, tag = "2")]
    identity: Option<WireIdentity>,
    #[prost(uint64, tag = "3")]
    position: u64,
    #[prost(uint64, tag = "4")]
    at_ms: u64,
}

pub(super) fn encode_notification(notification: &Notification) -> Bytes {
    let wire = WireNotification {
        owner: notification.owner.get(),
        identity: Some(to_identity(&notification.identity)),
        position: notification.position.get(),
        at_ms: notification.at_ms,
    };
    wire.encode_to_vec().into()
}

pub(super) fn decode_notification(bytes: &[u8]) -> Result<Notification, Undecodable> {
    let wire = WireNotification::decode(bytes)?;
    Ok(Notification {
        owner: UserId::from_stored(wire.owner),
        identity: from_identity(wire.identity)?,
        position: Position::from_stored(wire.position),
        at_ms: wire.at_ms,
    })
}

fn to_event_body(body: &EventBody) -> WireEventBody {
    WireEventBody {
        what: Some(match body {
            EventBody::Message(message) => {
                WireWhat::Message(WireMessage { record: Some(to_record(&message.record)), position: message.position.get() })
            }
            EventBody::Refused(refusal) => WireWhat::Refused(to_refusal(refusal)),
        }),
    }
}

fn from_event_body(wire: WireEventBody) -> Result<EventBody, Undecodable> {
    Ok(match wire.what.ok_or(Undecodable::Field("event"))? {
        WireWhat::Message(message) => {
            let record = from_record(message.record.ok_or(Undecodable::Field("record"))?)?;
            EventBody::Message(Arc::new(Message::new(record, Position::from_stored(message.position))))
        }
        WireWhat::Refused(refusal) => EventBody::Refused(Arc::new(from_refusal(refusal)?)),
    })
}

pub(super) fn encode_event_body(body: &EventBody) -> Bytes {
    to_event_body(body).encode_to_vec().into()
}

pub(super) fn decode_event_body(bytes: &[u8]) -> Result<EventBody, Undecodable> {
    from_event_body(WireEventBody::decode(bytes)?)
}

pub(super) fn encode_event(event: &Event) -> Bytes {
    WireEvent { seq: event.seq, body: Some(to_event_body(&event.body)) }.encode_to_vec().into()
}

pub(super) fn decode_event(bytes: &[u8]) -> Result<Event, Undecodable> {
    let wire = WireEvent::decode(bytes)?;
    Ok(Event { seq: wire.seq, body: from_event_body(wire.body.ok_or(Undecodable::Field("event"))?)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record() -> impl Strategy<Value = Record> {
        (1..u64::MAX / 2, 1..u64::MAX / 2, any::<[u8; 16]>(), ".{1,40}", any::<Option<[u8; 16]>>(), any::<u64>()).prop_map(
            |(one, other, id, text, reply, at_ms)| {
                let (sender, other) = (UserId::from_stored(one), UserId::from_stored(other));
                let message_id = |bytes: [u8; 16]| MessageId::from_stored(&bytes).expect("16 bytes");
                Record {
                    identity: Identity { sender, conversation: ConversationId::direct(sender, other), id: message_id(id) },
                    content: Content::Text(text),
                    reply_to: reply.map(|id| ReplyTo { from: other, id: message_id(id) }),
                    at_ms,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn records_survive_storage(record in record(), link in any::<(u64, u64, u64, u64)>()) {
            prop_assert_eq!(&Record::decode(&record.encode()).unwrap(), &record);
            let owners = vec![record.identity.sender];
            let mailbox = MailboxRecord {
                source: Source { partition: 3, epoch: 1 },
                link: Link { next_offset: link.0, digest: link.1 },
                previous: Link { next_offset: link.2, digest: link.3 },
                verdict: Verdict::Deliver(record, owners),
            };
            prop_assert_eq!(MailboxRecord::decode(&mailbox.encode()).unwrap(), mailbox);
        }

        #[test]
        fn events_survive_storage(record in record(), seq in any::<u64>(), position in any::<u64>(), hash in any::<u128>()) {
            let position = Position::from_stored(position);
            let identity = record.identity;
            let refusal = Refusal { identity, position, body_hash: BodyHash(hash), code: ErrorCode::IdReused, at_ms: seq };
            for body in [EventBody::Message(Arc::new(Message::new(record, position))), EventBody::Refused(Arc::new(refusal))] {
                prop_assert_eq!(&EventBody::decode(&body.encode()).unwrap(), &body);
                let event = Event { seq, body };
                prop_assert_eq!(Event::decode(&event.encode()).unwrap(), event);
            }
        }

        #[test]
        fn damaged_bytes_are_an_error_not_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Record::decode(&bytes);
            let _ = MailboxRecord::decode(&bytes);
            let _ = Refusal::decode(&bytes);
            let _ = Event::decode(&bytes);
            let _ = EventBody::decode(&bytes);
        }

        #[test]
        fn time_is_no_part_of_the_body(record in record()) {
            let later = Record { at_ms: record.at_ms.wrapping_add(1), ..record.clone() };
            prop_assert_eq!(later.body_hash(), record.body_hash());
            let Content::Text(text) = &record.content;
            let other = Record { content: Content::Text(format!("{text}.")), ..record.clone() };
            prop_assert_ne!(other.body_hash(), record.body_hash());
        }
    }
}
