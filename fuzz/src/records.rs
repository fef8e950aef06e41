//! Stored bytes: of the log, of mailboxes, of checkpoints. What can be read comes back as it is written.

use std::sync::Arc;

use prost::Message as _;
use protocol::codec::Encoding;
use protocol::codec::proto::v1;
use protocol::record::{
    BodyHash, Content, Event, EventBody, Identity, Link, MailboxRecord, Message, Notification, Record, Refusal, ReplyTo, Source,
    Verdict,
};
use protocol::{ConversationId, ErrorCode, MessageId, Position, UserId};
use router::checkpoint::Checkpoint;
use router::expand::{Shards, expand};

/// Every stored form of the protocol.
pub fn log_record(data: &[u8]) {
    match Record::decode(data) {
        Ok(record) => {
            assert_eq!(Record::decode(&record.encode()).as_ref(), Ok(&record));
            assert_eq!(Record { at_ms: 0, ..record.clone() }.body_hash(), record.body_hash());
            assert!(!expand(&record, Shards::new(24).expect("not 0")).is_empty());
        }
        Err(why) => drop((why.is_garbage(), why.to_string())),
    }
    if let Ok(record) = MailboxRecord::decode(data) {
        assert_eq!(MailboxRecord::decode(&record.encode()).as_ref(), Ok(&record));
        let _ = record.position();
    }
    if let Ok(refusal) = Refusal::decode(data) {
        assert_eq!(Refusal::decode(&refusal.encode()).as_ref(), Ok(&refusal));
    }
    if let Ok(body) = EventBody::decode(data) {
        assert_eq!(EventBody::decode(&body.encode()).as_ref(), Ok(&body));
        shown(&Event { seq: u64::MAX, body });
    }
    if let Ok(event) = Event::decode(data) {
        assert_eq!(Event::decode(&event.encode()).as_ref(), Ok(&event));
        shown(&event);
    }
    if let Ok(notification) = Notification::decode(data) {
        assert_eq!(Notification::decode(&notification.encode()).as_ref(), Ok(&notification));
    }
}

/// Whatever is stored can be shown.
fn shown(event: &Event) {
    let mut out = Vec::new();
    Encoding::Json.event(event, &mut out);
    let json: serde_json::Value = serde_json::from_slice(&out).expect("events are shown as JSON");
    assert_eq!(json["seq"].as_u64(), Some(event.seq));
    out.clear();
    Encoding::Proto.event(event, &mut out);
    let frame = v1::ServerFrame::decode(&out[..]).expect("events are shown as Protobuf").frame;
    assert!(matches!(frame, Some(v1::server_frame::Frame::Event(shown)) if shown.seq == event.seq && shown.event.is_some()));
    assert!(event.body.weight() > 0);
}

/// A router's checkpoint.
pub fn checkpoint(data: &[u8]) {
    if let Ok(checkpoint) = Checkpoint::decode(data) {
        assert_eq!(Checkpoint::decode(&checkpoint.encode()), Ok(checkpoint));
    }
}

/// Inputs to begin with.
pub fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let user = UserId::from_stored;
    let id = |byte: u8| MessageId::from_stored(&[byte; 16]).expect("16 bytes");
    let identity = Identity { sender: user(42), conversation: ConversationId::direct(user(42), user(43)), id: id(7) };
    let reply_to = Some(ReplyTo { from: user(43), id: id(8) });
    let record = Record { identity, content: Content::Text("h\u{e9}".into()), reply_to, at_ms: u64::MAX };
    let position = Position::new(1, 77);
    let refusal = Refusal { identity, position, body_hash: BodyHash(9), code: ErrorCode::IdReused, at_ms: 1 };
    let mailbox = |verdict| MailboxRecord {
        source: Source { partition: 3, epoch: 1 },
        link: Link { next_offset: 78, digest: 5 },
        previous: Link { next_offset: 70, digest: 4 },
        verdict,
    };
    let message = EventBody::Message(Arc::new(Message::new(record.clone(), position)));
    let links = [(router::expand::ShardId(3), Link { next_offset: 5, digest: 6 }), (router::expand::ShardId(9), Link::default())];
    let checkpoint = Checkpoint {
        epoch: 1,
        next_offset: 78,
        fingerprint: 99,
        rules: 1,
        chain: links.into_iter().collect(),
        skipped: [70, 76].into(),
    };
    vec![
        ("log_record", "record", record.encode().to_vec()),
        ("log_record", "refusal", refusal.encode().to_vec()),
        ("log_record", "mailbox record", mailbox(Verdict::Deliver(record, vec![user(42), user(43)])).encode().to_vec()),
        ("log_record", "mailbox refusal", mailbox(Verdict::Refuse(refusal.clone())).encode().to_vec()),
        ("log_record", "event", Event { seq: 12, body: message.clone() }.encode().to_vec()),
        ("log_record", "event body", message.encode().to_vec()),
        ("log_record", "refused event", EventBody::Refused(Arc::new(refusal)).encode().to_vec()),
        ("log_record", "notification", Notification { owner: user(43), identity, position, at_ms: 5 }.encode().to_vec()),
        ("checkpoint", "start", Checkpoint::start(1).encode().to_vec()),
        ("checkpoint", "chain", checkpoint.encode().to_vec()),
    ]
}
