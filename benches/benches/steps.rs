//! The steps of a message that are pure or in memory, one by one: `cargo bench -p benches`, or `cargo bench -p benches -- codec`.
//!
//! Text of 200 bytes. What needs a disk or a socket is measured by the commands of this crate and by `loadtest`.

#![allow(missing_docs, reason = "criterion_group makes a public function without any")]

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use gateway::frame_reader::FrameReader;
use gateway::outbound::{Frames, Framing};
use gateway::session::{Session, Step};
use prost::Message as _;
use protocol::codec::Encoding;
use protocol::codec::proto::v1::{self, client_frame};
use protocol::frame::ServerFrame;
use protocol::limits::Limits;
use protocol::record::{Content, Event, EventBody, Identity, Link, MailboxRecord, Message, Record, Source, Verdict};
use protocol::{ConversationId, DeviceName, MessageId, Position, UserId};
use router::assign::{Kind, owner_of};
use router::chain::{Chain, HighWaters};
use router::expand::{ShardId, Shards, expand};
use router::registry::memory::MemoryRegistry;
use router::registry::{NodeId, Registry as _};
use storage::sequence::{Arrival, keys_of, owners_of, plan};
use storage::store::{Head, Place};
use uuid::Uuid;

/// Mailboxes that a batch is spread over.
const USERS: u64 = 10_000;
/// Virtual shards of a cluster.
const SHARDS: u16 = 240;

fn user(number: u64) -> UserId {
    UserId::from_stored(number % USERS + 1)
}

/// The `number`-th message: each time between two others, each with an id of its own.
fn record(number: u64) -> Record {
    let (sender, other) = (user(number.wrapping_mul(7919)), user(number.wrapping_mul(104_729) + 1));
    let id = MessageId::from_stored(Uuid::now_v7().as_bytes()).expect("16 bytes");
    let identity = Identity { sender, conversation: ConversationId::direct(sender, other), id };
    Record { identity, content: Content::Text("x".repeat(200)), reply_to: None, at_ms: 1_700_000_000_000 }
}

fn position(number: u64) -> Position {
    Position::new(1, number)
}

fn event(seq: u64) -> Event {
    Event { seq, body: EventBody::Message(Arc::new(Message::new(record(seq), position(seq)))) }
}

fn send_json() -> Vec<u8> {
    let (id, text) = (Uuid::now_v7(), "x".repeat(200));
    format!(r#"{{"type":"send","id":"{id}","to":"u:43","kind":"text","body":{{"text":"{text}"}}}}"#).into_bytes()
}

fn send_proto() -> Vec<u8> {
    let send = client_frame::Send {
        id: Uuid::now_v7().as_bytes().to_vec(),
        to: Some(client_frame::send::To::User(43)),
        body: Some(client_frame::send::Body::Text("x".repeat(200))),
        reply_to: None,
    };
    v1::ClientFrame { frame: Some(client_frame::Frame::Send(send)) }.encode_to_vec()
}

/// Each step in each encoding; throughput counts the bytes of the frame.
fn codec(c: &mut Criterion) {
    let received = client_frame::Received { seq: 123_456 };
    let received = v1::ClientFrame { frame: Some(client_frame::Frame::Received(received)) }.encode_to_vec();
    codec_in(c, Encoding::Json, &send_json(), br#"{"type":"received","seq":123456}"#);
    codec_in(c, Encoding::Proto, &send_proto(), &received);
}

fn codec_in(c: &mut Criterion, encoding: Encoding, send: &[u8], received: &[u8]) {
    let name = if encoding == Encoding::Json { "codec".to_owned() } else { format!("codec {}", encoding.name()) };
    let mut group = c.benchmark_group(name);
    for (name, frame) in [("decode a send", send), ("decode an acknowledgement", received)] {
        assert!(encoding.decode(frame).is_ok());
        group.throughput(Throughput::Bytes(frame.len() as u64));
        group.bench_function(name, |b| b.iter(|| encoding.decode(black_box(frame))));
    }
    let mut out = Vec::with_capacity(1024);
    let one = record(1);
    let accepted = ServerFrame::Accepted { id: one.identity.id, conversation: one.identity.conversation };
    encoding.encode(&accepted, &mut out);
    group.throughput(Throughput::Bytes(out.len() as u64));
    group.bench_function("encode accepted", |b| {
        b.iter(|| {
            out.clear();
            encoding.encode(black_box(&accepted), &mut out);
        });
    });
    let shared = event(7);
    out.clear();
    encoding.event(&shared, &mut out);
    group.throughput(Throughput::Bytes(out.len() as u64));
    group.bench_function("encode an event for its first receiver", |b| {
        b.iter_batched_ref(
            || event(7),
            |event| {
                out.clear();
                encoding.event(event, &mut out);
            },
            BatchSize::SmallInput,
        );
    });
    group.bench_function("encode an event for the next receiver", |b| {
        b.iter(|| {
            out.clear();
            encoding.event(black_box(&shared), &mut out);
        });
    });
    group.finish();
}

/// A masked text frame, as a client writes it.
fn masked(payload: &[u8]) -> Vec<u8> {
    let (mask, length) = ([1, 2, 3, 4], u16::try_from(payload.len()).expect("short"));
    let mut frame = vec![0x81, 0x80 | 126];
    frame.extend(length.to_be_bytes());
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

fn frames(c: &mut Criterion) {
    let mut group = c.benchmark_group("frames");
    let frame = masked(&send_json());
    group.throughput(Throughput::Bytes(frame.len() as u64));
    group.bench_function("read a text frame", |b| {
        b.iter_batched_ref(
            || frame.clone(),
            |bytes| {
                let mut reader = FrameReader::new(64 * 1024);
                let mut input = &mut bytes[..];
                assert!(matches!(reader.next(&mut input), Ok(Some(_))));
            },
            BatchSize::SmallInput,
        );
    });
    let shared = event(7);
    group.bench_function("write an event", |b| {
        b.iter(|| {
            let mut frames = Frames::borrow(Framing::WebSocket(Encoding::Json));
            frames.event(black_box(&shared));
            black_box(frames.bytes());
            frames.give_back();
        });
    });
    group.finish();
}

/// A session that is caught up on an empty mailbox.
fn live() -> Session {
    let mut session = Session::new(Place { epoch: 1, seq: 0 }, &Limits::default());
    assert!(matches!(session.next_step(), Step::Read { .. }));
    session.read_done(Some(Head { head: 0, floor: 0 })).expect("nothing is gone");
    assert_eq!(session.next_step(), Step::Live(0));
    session
}

fn session(c: &mut Criterion) {
    let mut session = live();
    c.bench_function("session: take a push, next step, every 32nd acknowledged", |b| {
        b.iter(|| {
            let seq = session.next();
            assert!(session.take(seq, 456));
            if seq.is_multiple_of(32) {
                session.received(seq).expect("it was written");
            }
            black_box(session.next_step())
        });
    });
}

fn routing(c: &mut Criterion) {
    let mut group = c.benchmark_group("routing");
    let shards = Shards::new(SHARDS).expect("not 0");
    let one = record(5);
    group.bench_function("expand a direct message", |b| b.iter(|| expand(black_box(&one), shards)));
    group.bench_function("shard of a user", |b| b.iter(|| shards.of(black_box(user(77)))));
    let live: Vec<_> = (0..3).map(|node| NodeId { node, boot: u64::from(node) * 77 + 5 }).collect();
    group.bench_function("owner of a shard among 3 members", |b| b.iter(|| owner_of(Kind::Mailbox, black_box(77), &live)));
    let source = Source { partition: 3, epoch: 1 };
    let verdict = Verdict::Deliver(one.clone(), vec![one.identity.sender]);
    let (mut chain, mut waters, mut offset) = (Chain::default(), HighWaters::default(), 0);
    group.bench_function("chain a verdict and judge it", |b| {
        b.iter(|| {
            offset += 1;
            let record = chain.extend(source, offset, (ShardId(7), verdict.clone()));
            black_box(waters.judge(&record))
        });
    });
    group.finish();
}

/// A batch of the commit cycle: expansion, keys, owners, sequencing, against heads that are known.
fn mailbox(c: &mut Criterion) {
    let mut group = c.benchmark_group("mailbox");
    for size in [1, 100, 1000] {
        group.throughput(Throughput::Elements(size));
        group.bench_function(format!("sequence a batch of {size}"), |b| {
            let make = || {
                let arrivals: Vec<_> =
                    (0..size).map(|number| (position(number), expand(&record(number), Shards::ONE).remove(0).1)).collect();
                let heads: HashMap<_, _> = (0..USERS).map(|number| (user(number), Head { head: 9, floor: 0 })).collect();
                (arrivals, heads)
            };
            b.iter_batched(
                make,
                |(arrivals, mut heads)| {
                    let arrivals: Vec<_> =
                        arrivals.into_iter().map(|(position, verdict)| Arrival::new(position, verdict)).collect();
                    black_box((keys_of(&arrivals), owners_of(&arrivals)));
                    let plan = plan(arrivals, &mut HashMap::new(), &mut heads);
                    (plan, heads) // dropped outside of what is timed
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

fn registry(c: &mut Criterion) {
    let mut group = c.benchmark_group("registry in memory");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (registry, device, node) = (MemoryRegistry::new(), DeviceName::default(), NodeId { node: 0, boot: 1 });
    for number in 0..USERS {
        runtime.block_on(registry.register(user(number), &device, node)).expect("memory answers");
    }
    let mut number = 0;
    group.bench_function("register again", |b| {
        b.iter(|| {
            number += 1;
            runtime.block_on(registry.register(user(number), &device, node))
        });
    });
    let both = [user(5), user(4000)];
    group.bench_function("nodes of 2 users", |b| b.iter(|| runtime.block_on(registry.nodes(black_box(&both)))));
    group.finish();
}

fn records(c: &mut Criterion) {
    let mut group = c.benchmark_group("log records");
    let one = record(5);
    let bytes = one.encode();
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("encode a message", |b| b.iter(|| black_box(&one).encode()));
    group.bench_function("decode a message", |b| b.iter(|| Record::decode(black_box(&bytes)).expect("it was encoded")));
    let mailbox = MailboxRecord {
        source: Source { partition: 3, epoch: 1 },
        link: Link { next_offset: 8, digest: 99 },
        previous: Link { next_offset: 7, digest: 98 },
        verdict: Verdict::Deliver(one.clone(), vec![one.identity.sender]),
    };
    let bytes = mailbox.encode();
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("encode a mailbox record", |b| b.iter(|| black_box(&mailbox).encode()));
    group.bench_function("decode a mailbox record", |b| {
        b.iter(|| MailboxRecord::decode(black_box(&bytes)).expect("it was encoded"));
    });
    group.bench_function("fingerprint of a body", |b| b.iter(|| black_box(&one).body_hash()));
    group.finish();
}

criterion_group!(steps, codec, frames, session, routing, mailbox, registry, records);
criterion_main!(steps);
