//! WebSocket frames, and the client's frames in them.

use gateway::frame_reader::{FrameReader, Incoming, Violation};
use prost::Message as _;
use protocol::codec::Encoding;
use protocol::codec::proto::v1;
use protocol::codec::proto::v1::client_frame::{self as wire, Frame};
use protocol::frame::{ClientFrame, FrameError, Recipient, ServerFrame};
use protocol::limits::CONTROL_BYTES_MAX;
use protocol::record::Content;
use protocol::{ConversationId, DeviceName, MessageId, Position, UserId};

/// Small, so that limits are met.
const MESSAGE_BYTES_MAX: usize = 1024;

/// What a reader has made of a stream.
#[derive(Debug, PartialEq, Eq, Clone)]
enum Read {
    Message(bool, Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
    Broken(Violation),
}

/// Reads a stream that comes in pieces of this many bytes.
fn read(stream: &[u8], piece: usize) -> (Vec<Read>, bool) {
    let mut reader = FrameReader::new(MESSAGE_BYTES_MAX);
    let mut all = Vec::new();
    for part in stream.chunks(piece) {
        let mut part = part.to_vec();
        let mut input = part.as_mut_slice();
        loop {
            let one = match reader.next(&mut input) {
                Ok(None) => break,
                Ok(Some(Incoming::Message { text, payload })) => Read::Message(text, payload.to_vec()),
                Ok(Some(Incoming::Ping(payload))) => Read::Ping(payload.to_vec()),
                Ok(Some(Incoming::Pong)) => Read::Pong,
                Ok(Some(Incoming::Close(code))) => Read::Close(code),
                Err(violation) => {
                    all.push(Read::Broken(violation));
                    return (all, false);
                }
            };
            all.push(one);
        }
        assert!(input.is_empty(), "a reader that wants more has used all there is");
    }
    (all, reader.is_mid_message())
}

/// A stream of bytes, cut in two ways; the first byte says how.
pub fn frames(data: &[u8]) {
    let Some((first, stream)) = data.split_first() else { return };
    let whole = read(stream, stream.len().max(1));
    assert_eq!(read(stream, usize::from(*first) % 32 + 1), whole, "the same, however it is cut");
    for one in whole.0 {
        match one {
            Read::Message(text, payload) => {
                assert!(payload.len() <= MESSAGE_BYTES_MAX);
                assert!(!text || std::str::from_utf8(&payload).is_ok());
            }
            Read::Ping(payload) => assert!(payload.len() <= CONTROL_BYTES_MAX),
            Read::Close(code) => assert!(code.is_none_or(protocol::close_code::acceptable_from_peer)),
            Read::Broken(Violation(code)) => assert!([1002, 1007, 1009].contains(&code.number())),
            Read::Pong => {}
        }
    }
}

/// A client's frame in JSON: refused with an answer that can be said, or taken as what it says. The frame reader lets through UTF-8 only.
pub fn client_frame(data: &[u8]) {
    if std::str::from_utf8(data).is_err() {
        return;
    }
    let json: Option<serde_json::Value> = serde_json::from_slice(data).ok();
    match Encoding::Json.decode(data) {
        Err(error) => check_error(error, data, Encoding::Json),
        Ok(frame) => {
            let json = json.expect("what is taken is JSON");
            let is = |name: &str| assert_eq!(json["type"], name);
            match frame {
                ClientFrame::Hello(_) => is("hello"),
                ClientFrame::Received(seq) => {
                    is("received");
                    assert_eq!(json["seq"].as_u64(), Some(seq));
                }
                ClientFrame::Read { conversation, position } => {
                    is("read");
                    assert_eq!(json["conversation"].as_str(), Some(conversation.to_string().as_str()));
                    assert_eq!(json["position"].as_str(), Some(position.to_string().as_str()));
                }
                ClientFrame::Typing(_) => is("typing"),
                ClientFrame::Watch(users) => {
                    is("watch");
                    assert_eq!(json["users"].as_array().map(Vec::len), Some(users.len()));
                }
                ClientFrame::History { .. } => is("history"),
                ClientFrame::Conversations { .. } => is("conversations"),
                ClientFrame::Ping => is("ping"),
                ClientFrame::Send(send) => {
                    is("send");
                    let Content::Text(text) = &send.content;
                    assert!(!text.contains('\0') && json["body"]["text"].as_str() == Some(text));
                    assert_eq!(json["id"].as_str(), Some(send.id.to_string().as_str()), "an id has one form");
                    assert_eq!(send.id.bytes()[6] >> 4, 7);
                }
            }
        }
    }
}

/// A client's frame in Protobuf: refused with an answer that can be said, or taken as what it says.
pub fn client_frame_proto(data: &[u8]) {
    let frame = match Encoding::Proto.decode(data) {
        Err(error) => return check_error(error, data, Encoding::Proto),
        Ok(frame) => frame,
    };
    let contract = v1::ClientFrame::decode(data).expect("what is taken is Protobuf");
    assert_eq!(Encoding::Proto.decode(&contract.encode_to_vec()).as_ref(), Ok(&frame), "what was unknown in it says nothing");
    match (frame, contract.frame.expect("what is taken has a type")) {
        (ClientFrame::Hello(hello), Frame::Hello(said)) => {
            assert_eq!((hello.epoch, hello.cursor, hello.version), (said.epoch, said.cursor, said.version));
            assert_eq!((hello.token, hello.device.map(|device| device.to_string())), (said.token, said.device));
            assert_eq!(hello.rev, said.rev);
        }
        (ClientFrame::Received(seq), Frame::Received(said)) => assert_eq!(seq, said.seq),
        (ClientFrame::Read { conversation, position }, Frame::Read(said)) => {
            assert_eq!((conversation.to_string(), position.get()), (said.conversation, said.position));
        }
        (ClientFrame::Typing(Recipient::User(user)), Frame::Typing(said)) => {
            assert_eq!(said.to, Some(wire::typing::To::User(user.get())));
        }
        (ClientFrame::Typing(Recipient::Conversation(conversation)), Frame::Typing(said)) => {
            assert_eq!(said.to, Some(wire::typing::To::Conversation(conversation.to_string())));
        }
        (ClientFrame::Watch(users), Frame::Watch(said)) => {
            assert_eq!(users.into_iter().map(UserId::get).collect::<Vec<_>>(), said.users);
        }
        (ClientFrame::History { conversation, before, limit }, Frame::History(said)) => {
            assert_eq!((conversation.to_string(), limit), (said.conversation, said.limit));
            assert_eq!(before.map(Position::get), said.before);
        }
        (ClientFrame::Conversations { before, limit }, Frame::Conversations(said)) => {
            assert_eq!((before.map(Position::get), limit), (said.before, said.limit));
        }
        (ClientFrame::Ping, Frame::Ping(_)) => {}
        (ClientFrame::Send(send), Frame::Send(said)) => {
            let Content::Text(text) = &send.content;
            assert!(!text.contains('\0') && said.body == Some(wire::send::Body::Text(text.clone())));
            assert_eq!(send.id.bytes()[..], said.id);
            assert_eq!(send.id.bytes()[6] >> 4, 7);
            assert_eq!(send.reply_to.map(|reply| reply.from.get()), said.reply_to.map(|reply| reply.sender));
        }
        (taken, said) => panic!("{said:?} was taken for {taken:?}"),
    }
}

fn check_error(error: FrameError, data: &[u8], encoding: Encoding) {
    // 160 letters of the message, each up to 6 bytes as JSON, and what stands around them
    const ANSWER_BYTES_MAX: usize = 2048;
    if let Some(id) = error.id {
        let has = |part: &[u8]| data.windows(part.len()).any(|window| window == part);
        let comes = match encoding {
            Encoding::Json => has(id.to_string().as_bytes()) || data.contains(&b'\\'),
            Encoding::Proto => has(id.bytes()),
        };
        assert!(comes, "an id comes from the frame");
    }
    let (code, mut out) = (error.code, Vec::new());
    encoding.encode(&ServerFrame::Error { error, retry_after_ms: None }, &mut out);
    match encoding {
        Encoding::Json => {
            assert!(serde_json::from_slice::<serde_json::Value>(&out).is_ok_and(|answer| answer["code"] == code.name()));
        }
        Encoding::Proto => {
            let answer = v1::ServerFrame::decode(&out[..]).expect("an answer is Protobuf").frame;
            assert!(matches!(answer, Some(v1::server_frame::Frame::Error(why)) if why.code() != v1::ErrorCode::Unspecified));
        }
    }
    assert!(out.len() <= ANSWER_BYTES_MAX, "{} bytes of answer to {}", out.len(), data.len());
}

/// Names: each has one form, so what is read is written the same.
pub fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let same = |name: Option<String>| assert!(name.is_none_or(|name| name == text), "{text:?} has another form");
    same(text.parse::<UserId>().ok().map(|name| name.to_string()));
    same(text.parse::<ConversationId>().ok().map(|name| name.to_string()));
    same(text.parse::<DeviceName>().ok().map(|name| name.to_string()));
    same(text.parse::<MessageId>().ok().map(|name| name.to_string()));
    same(text.parse::<Position>().ok().map(|name| name.to_string()));
    if let Ok(conversation) = text.parse::<ConversationId>() {
        assert_eq!(ConversationId::from_key(&conversation.key()), Some(conversation));
    }
}

/// A masked frame.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [1, 2, 3, 4];
    let length = match payload.len() {
        short @ 0..126 => vec![0x80 | short as u8],
        long => [&[0x80 | 126][..], &u16::try_from(long).expect("short messages").to_be_bytes()].concat(),
    };
    let bytes: Vec<u8> = payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    [&[first][..], &length, &MASK, &bytes].concat()
}

/// Inputs to begin with.
pub fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let stream = |first: u8, frames: &[Vec<u8>]| [vec![first], frames.concat()].concat();
    let mut seeds = vec![
        ("frame_reader", "text", stream(3, &[masked(0x81, br#"{"type":"ping"}"#)])),
        (
            "frame_reader",
            "fragments",
            stream(0, &[masked(0x01, b"a\xe2\x82"), masked(0x89, b"x"), masked(0x00, b"\xac"), masked(0x80, b"b")]),
        ),
        ("frame_reader", "long", stream(9, &[masked(0x82, &[b'x'; 600]), masked(0x8a, b"")])),
        ("frame_reader", "close", stream(1, &[masked(0x88, &[3, 232, b'b', b'y', b'e'])])),
        ("frame_reader", "length of 64 bits", stream(0, &[vec![0x81, 0xff, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0]])),
        ("frame_reader", "unmasked", stream(0, &[vec![0x81, 1, b'x']])),
        ("names", "user", b"9223372032559808511".to_vec()),
        ("names", "conversation", b"d:42:43".to_vec()),
        ("names", "device", b"phone-1._X".to_vec()),
        ("names", "message", b"01932d5e-7f3a-7c4d-8e5f-0123456789ab".to_vec()),
        ("names", "position", b"18446744073709551615".to_vec()),
    ];
    let id = "01932d5e-7f3a-7c4d-8e5f-0123456789ab";
    let frames = [
        (
            "hello",
            r#"{"type":"hello","token":"a.b.c","device":"phone-1","epoch":"1","cursor":5,"rev":"7","version":1}"#.to_owned(),
        ),
        (
            "send",
            format!(
                r#"{{"type":"send","id":"{id}","to":"u:43","kind":"text","body":{{"text":"h\u00e9 \ud83d\ude00"}},"reply_to":{{"from":"42","id":"{id}"}}}}"#
            ),
        ),
        ("send to a conversation", format!(r#"{{"type":"send","id":"{id}","to":"d:42:43","kind":"text","body":{{"text":""}}}}"#)),
        ("send, wrong", format!(r#"{{"type":"send","id":"{id}","to":"u:0","kind":"text","body":{{"text":7}}}}"#)),
        ("received", r#"{"type":"received","seq":18446744073709551615}"#.to_owned()),
        ("read", r#"{"type":"read","conversation":"d:42:43","position":"281474976710656"}"#.to_owned()),
        ("typing", r#"{"type":"typing","to":"u:43"}"#.to_owned()),
        ("watch", r#"{"type":"watch","users":["43","44"]}"#.to_owned()),
        ("history", r#"{"type":"history","conversation":"d:42:43","before":"281474976710656","limit":100}"#.to_owned()),
        ("conversations", r#"{"type":"conversations","before":null,"limit":1}"#.to_owned()),
        ("ping", r#"{"x":[{"y":"\"]}"}],"type":"p\u0069ng"}"#.to_owned()),
        ("deep", format!(r#"{{"type":"ping","x":{}{}}}"#, "[".repeat(40), "]".repeat(40))),
    ];
    seeds.extend(frames.into_iter().map(|(name, frame)| ("client_frame", name, frame.into_bytes())));
    seeds.extend(proto_seeds().into_iter().map(|(name, frame)| ("client_frame_proto", name, frame)));
    seeds
}

fn proto_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let bytes = |frame: Frame| v1::ClientFrame { frame: Some(frame) }.encode_to_vec();
    let id = MessageId::from_stored(&[0x01, 0x93, 0x2d, 0x5e, 0x7f, 0x3a, 0x7c, 0x4d, 0x8e, 0x5f, 1, 2, 3, 4, 5, 6]);
    let id = id.expect("16 bytes").bytes().to_vec();
    let send = |to, text: &str| wire::Send {
        id: id.clone(),
        to: Some(to),
        body: Some(wire::send::Body::Text(text.into())),
        reply_to: None,
    };
    let (user, by_name) = (wire::send::To::User(43), wire::send::To::Conversation("d:42:43".into()));
    let answer = wire::Send { reply_to: Some(v1::MessageRef { sender: 42, id: id.clone() }), ..send(user, "h\u{e9} \u{1f600}") };
    let hello = wire::Hello {
        token: Some("a.b.c".into()),
        device: Some("phone-1".into()),
        epoch: Some(1),
        cursor: Some(5),
        version: Some(1),
        rev: Some(7),
    };
    let page = wire::History { conversation: "d:42:43".into(), before: Some(281_474_976_710_656), limit: Some(100) };
    vec![
        ("hello", bytes(Frame::Hello(hello))),
        ("send", bytes(Frame::Send(answer))),
        ("send to a conversation", bytes(Frame::Send(send(by_name, "")))),
        ("send, wrong", bytes(Frame::Send(send(wire::send::To::User(0), "a\0b")))),
        ("received", bytes(Frame::Received(wire::Received { seq: u64::MAX }))),
        ("history", bytes(Frame::History(page))),
        ("conversations", bytes(Frame::Conversations(wire::Conversations { before: Some(7), limit: Some(1) }))),
        ("ping", [bytes(Frame::Ping(wire::Ping {})), vec![0x78, 0x01]].concat()),
        ("watch", bytes(Frame::Watch(wire::Watch { users: vec![1, 2, u64::MAX] }))),
        ("groups", [[0x0b_u8; 40], [0x0c; 40]].concat()),
        ("damaged", vec![0x12, 0x7f, 0x0a]),
    ]
}
