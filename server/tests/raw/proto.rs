//! Protobuf for clients that can say anything: frames to send, and what the server says, in the words that JSON has for it.

use prost::Message as _;
use protocol::codec::proto::v1::{self, client_frame, server_frame};

use super::client_frame as masked;

/// A binary message of a client's frame.
pub(crate) fn message(frame: client_frame::Frame) -> Vec<u8> {
    masked(0x82, &v1::ClientFrame { frame: Some(frame) }.encode_to_vec())
}

/// Hello with a token, on a device.
pub(crate) fn hello(token: &str, device: &str) -> Vec<u8> {
    let hello = client_frame::Hello { token: Some(token.into()), device: Some(device.into()), ..client_frame::Hello::default() };
    message(client_frame::Frame::Hello(hello))
}

pub(crate) fn ping() -> Vec<u8> {
    message(client_frame::Frame::Ping(client_frame::Ping {}))
}

/// What a server's frame says, as far as rows look for it.
pub(super) fn words(payload: &[u8]) -> String {
    use server_frame::Frame;
    let frame = v1::ServerFrame::decode(payload).expect("the server writes Protobuf").frame.expect("of a type of the contract");
    let code = |code: v1::ErrorCode| code.as_str_name().trim_start_matches("ERROR_CODE_").to_lowercase();
    match frame {
        Frame::Event(_) => r#"{"type":"event"}"#.to_owned(),
        Frame::Refused(refused) => {
            let (code, field) = (code(refused.code()), refused.field());
            format!(r#"{{"type":"refused","code":"{code}","field":"{field}","final":{}}}"#, refused.r#final)
        }
        Frame::Error(error) => {
            let (code, field) = (code(error.code()), error.field());
            format!(r#"{{"type":"error","code":"{code}","field":"{field}","message":"{}"}}"#, error.message)
        }
        Frame::Live(_) => r#"{"type":"live"}"#.to_owned(),
        Frame::Pong(_) => r#"{"type":"pong"}"#.to_owned(),
        Frame::Accepted(_) => r#"{"type":"accepted"}"#.to_owned(),
        Frame::Page(page) => format!(r#"{{"type":"page","events":{}}}"#, page.events.len()),
        Frame::Conversations(_) => r#"{"type":"conversations"}"#.to_owned(),
        other => format!(r#"{{"type":"other","debug":"{other:?}"}}"#),
    }
}
