//! How frames are written: in JSON or in Protobuf.

use serde::{Deserialize, Serialize};

use super::{ClientFrame, ServerFrame, proto};

/// An encoding, agreed in the handshake by its sub-protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Text messages.
    #[default]
    Json,
    /// Binary messages.
    Proto,
}

impl Encoding {
    /// Its name in files and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Proto => "proto",
        }
    }

    /// The sub-protocol.
    #[must_use]
    pub const fn subprotocol(self) -> &'static str {
        match self {
            Self::Json => "switchboard.v1.json",
            Self::Proto => "switchboard.v1.proto",
        }
    }

    /// A client's frame as it is sent.
    ///
    /// # Errors
    /// When it cannot be written so, in words.
    pub fn write(self, frame: &ClientFrame<'_>) -> Result<Vec<u8>, String> {
        match self {
            Self::Json => serde_json::to_vec(frame).map_err(|error| error.to_string()),
            Self::Proto => proto::write(frame),
        }
    }

    /// A server's frame as it came.
    ///
    /// # Errors
    /// When it is not in the contract, in words.
    pub fn read(self, bytes: &[u8]) -> Result<ServerFrame, String> {
        match self {
            Self::Json => serde_json::from_slice(bytes).map_err(|error| format!("{error}: {}", String::from_utf8_lossy(bytes))),
            Self::Proto => proto::read(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::frame::{Body, Hello, Send};

    /// The golden vectors of the contract: side, JSON and Protobuf of each name.
    fn vectors() -> Vec<(String, bool, Value, Vec<u8>)> {
        let all: Vec<Value> = serde_json::from_str(include_str!("../../../protocol/tests/golden/frames.json")).unwrap();
        let bytes = |hex: &str| (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        let text = |vector: &Value, field: &str| vector[field].as_str().unwrap().to_owned();
        let one = |v: &Value| (text(v, "name"), v["side"] == "server", v["json"].clone(), bytes(&text(v, "proto")));
        all.iter().map(one).collect()
    }

    #[test]
    fn the_golden_frames_of_a_server_say_the_same_in_both_encodings() {
        let mut known = 0;
        for (name, _, json, proto) in vectors().into_iter().filter(|(_, server, ..)| *server) {
            let json = Encoding::Json.read(json.to_string().as_bytes()).unwrap();
            let proto = Encoding::Proto.read(&proto).unwrap();
            assert_eq!(format!("{json:?}"), format!("{proto:?}"), "{name}");
            known += usize::from(!matches!(json, ServerFrame::Other));
        }
        assert!(known >= 15, "{known} vectors are frames that this client knows");
    }

    #[test]
    fn what_a_client_writes_is_in_the_golden_vectors() {
        let id = "01932f6e-5c1e-7c3a-9d4e-1f2a3b4c5d6e".parse().unwrap();
        let frames = [
            ("send", ClientFrame::Send(Send { id, to: "u:43", kind: "text", body: Body { text: "hi" } })),
            ("received", ClientFrame::Received { seq: 18 }),
            ("read", ClientFrame::Read { conversation: "d:42:43", position: "281474976710674" }),
            ("history", ClientFrame::History { conversation: "d:42:43", before: Some("281474976710674"), limit: 100 }),
            ("conversations", ClientFrame::Conversations { before: None, limit: 10 }),
            ("ping", ClientFrame::Ping),
        ];
        let vectors = vectors();
        for (name, frame) in frames {
            let (_, _, json, proto) = vectors.iter().find(|(known, server, ..)| known == name && !server).unwrap();
            let mut written: Value = serde_json::from_slice(&Encoding::Json.write(&frame).unwrap()).unwrap();
            written.as_object_mut().unwrap().retain(|_, value| !value.is_null());
            assert_eq!(written, *json, "{name}");
            assert_eq!(Encoding::Proto.write(&frame).unwrap(), *proto, "{name}");
        }
        // this client's hello always names its device: no vector is the same
        let hello = ClientFrame::Hello(Hello { device: "a", cursor: Some(0), epoch: Some("1") });
        assert_eq!(Encoding::Json.write(&hello).unwrap(), br#"{"type":"hello","device":"a","cursor":0,"epoch":"1"}"#);
        assert_eq!(Encoding::Proto.write(&hello).unwrap(), [0x0a, 0x07, 0x12, 0x01, b'a', 0x18, 0x01, 0x20, 0x00]);
    }

    #[test]
    fn protobuf_outside_the_contract_is_an_error() {
        assert!(matches!(Encoding::Proto.read(&[0x7a, 0x02, 0x08, 0x07]), Ok(ServerFrame::Other)), "a frame that is not known");
        for (what, bytes) in [
            ("damaged", &[0x1a, 0x7f][..]),
            ("an id of 3 bytes", &[0x22, 0x05, 0x0a, 0x03, 1, 2, 3]),
            ("a refusal without a code", &[0x2a, 0x00]),
            ("a summary without a message", &[0x42, 0x02, 0x0a, 0x00]),
        ] {
            assert!(Encoding::Proto.read(bytes).is_err(), "{what}");
        }
        assert!(Encoding::Proto.write(&ClientFrame::Conversations { before: Some("x"), limit: 1 }).is_err());
    }
}
