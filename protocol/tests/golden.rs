//! The golden vectors of `golden/frames.json`: each frame of the protocol in JSON and in Protobuf. A client in any language can be held against
//! them.

#![allow(clippy::unwrap_used, reason = "tests; the lint only knows functions marked as such")]

mod golden_frames;

use prost::Message as _;
use protocol::codec::Encoding;
use protocol::codec::proto::v1;
use protocol::frame::ServerFrame;
use protocol::record::Event;
use serde::Deserialize;
use serde_json::Value;

/// A frame, in both encodings.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    name: String,
    /// Who says it.
    side: Side,
    meaning: String,
    json: Value,
    /// In hexadecimal.
    proto: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Side {
    Client,
    Server,
}

impl Vector {
    fn bytes(&self) -> Vec<u8> {
        let digits = self.proto.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
        digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
    }
}

/// A server's frame as the codec takes it.
enum Said {
    Frame(ServerFrame),
    Event(Event),
}

impl Said {
    fn encoded(&self, encoding: Encoding) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Frame(frame) => encoding.encode(frame, &mut out),
            Self::Event(event) => encoding.event(event, &mut out),
        }
        out
    }
}

fn vectors(side: Side) -> Vec<Vector> {
    let all: Vec<Vector> = serde_json::from_str(include_str!("golden/frames.json")).unwrap();
    all.into_iter().filter(|vector| vector.side == side).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn names_are_unique_and_meanings_said() {
    for side in [Side::Client, Side::Server] {
        let mut names: Vec<_> = vectors(side).into_iter().inspect(|v| assert!(!v.meaning.is_empty())).map(|v| v.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
    }
}

#[test]
fn every_frame_of_a_client_is_read_alike_in_both_encodings() {
    for vector in vectors(Side::Client) {
        let json = Encoding::Json.decode(vector.json.to_string().as_bytes());
        let proto = Encoding::Proto.decode(&vector.bytes());
        assert_eq!(json, proto, "{}", vector.name);
        let frame = json.unwrap_or_else(|why| panic!("{}: {why:?}", vector.name));
        assert_eq!(golden_frames::json(&frame), vector.json, "{}", vector.name);
        assert_eq!(hex(&golden_frames::proto(&frame)), vector.proto, "{}", vector.name);
        let wire = v1::ClientFrame::decode(&vector.bytes()[..]).unwrap();
        assert!(wire.frame.is_some(), "{}", vector.name);
        assert_eq!(hex(&wire.encode_to_vec()), vector.proto, "{}: generated code writes the same", vector.name);
    }
}

#[test]
fn every_frame_of_a_server_is_written_as_its_vector_says() {
    let (mut said, vectors) = (golden_frames::said(), vectors(Side::Server));
    for vector in &vectors {
        let wire = v1::ServerFrame::decode(&vector.bytes()[..]).unwrap();
        assert!(wire.frame.is_some(), "{}", vector.name);
        assert_eq!(hex(&wire.encode_to_vec()), vector.proto, "{}: generated code writes the same", vector.name);
        let frame = said.remove(vector.name.as_str()).unwrap_or_else(|| panic!("{} is not said by this test", vector.name));
        let json: Value = serde_json::from_slice(&frame.encoded(Encoding::Json)).unwrap();
        assert_eq!(json, vector.json, "{}", vector.name);
        assert_eq!(hex(&frame.encoded(Encoding::Proto)), vector.proto, "{}", vector.name);
    }
    assert!(said.is_empty(), "without a vector: {:?}", said.keys());
}
