//! Reading a client's Protobuf. What the decoder cannot read as the contract says is a bad request: generated code does not write such bytes. What
//! it can read is checked as in JSON, and an error names the field.

use prost::Message as _;

use super::groups::has_group;
use super::v1::client_frame::{self as wire, Frame, send, typing};
use super::v1::{ClientFrame as WireFrame, MessageRef};
use crate::codec::check::{self, SendFields, bad_field, error, missing};
use crate::error_code::ErrorCode;
use crate::frame::{ClientFrame, FrameError, Hello, Recipient};
use crate::id::{ConversationId, IdError, MessageId, Position, UserId};
use crate::record::ReplyTo;

/// Reads a frame.
///
/// # Errors
/// [`FrameError`], always with a code of the closed list.
pub fn decode(bytes: &[u8]) -> Result<ClientFrame, FrameError> {
    if bytes.is_empty() {
        return Err(error(ErrorCode::BadRequest, None, "an empty frame"));
    }
    if has_group(bytes) {
        return Err(error(ErrorCode::BadRequest, None, "a group, or no wire type"));
    }
    // the decoder's words name the field of the contract and nothing of what the client wrote
    let frame = WireFrame::decode(bytes).map_err(|why| error(ErrorCode::BadRequest, None, &why.to_string()))?;
    match frame.frame {
        Some(Frame::Send(send)) => decode_send(send),
        Some(Frame::Received(wire::Received { seq })) => Ok(ClientFrame::Received(seq)),
        Some(Frame::Hello(hello)) => decode_hello(hello),
        Some(Frame::History(wire::History { conversation: name, before, limit })) => {
            Ok(ClientFrame::History { conversation: conversation(&name)?, before: before.map(Position::from_stored), limit })
        }
        Some(Frame::Conversations(wire::Conversations { before, limit })) => {
            Ok(ClientFrame::Conversations { before: before.map(Position::from_stored), limit })
        }
        Some(Frame::Ping(wire::Ping {})) => Ok(ClientFrame::Ping),
        Some(Frame::Read(wire::Read { conversation: name, position })) => {
            Ok(ClientFrame::Read { conversation: conversation(&name)?, position: Position::from_stored(position) })
        }
        Some(Frame::Typing(wire::Typing { to })) => check::to(to, typing_to).map(ClientFrame::Typing),
        Some(Frame::Watch(wire::Watch { users })) => decode_watch(&users),
        None => Err(check::unknown_type()),
    }
}

fn decode_hello(hello: wire::Hello) -> Result<ClientFrame, FrameError> {
    let wire::Hello { token, device, epoch, cursor, version, rev } = hello;
    let device = device.map(|device| device.parse()).transpose();
    let device = device.map_err(|why: IdError| bad_field("device", &why.to_string()))?;
    Ok(ClientFrame::Hello(Hello { token, device, epoch, cursor, rev, version }))
}

fn decode_send(fields: wire::Send) -> Result<ClientFrame, FrameError> {
    let wire::Send { id, to, body, reply_to } = fields;
    let id = (!id.is_empty()).then(|| message_id(&id));
    let text = body.map(|send::Body::Text(text)| text).ok_or_else(|| missing("body"));
    let reply_to = reply_to.map(decode_reply).transpose();
    check::send(id, SendFields { to, text, reply_to }, recipient)
}

fn recipient(to: send::To) -> Result<Recipient, IdError> {
    match to {
        send::To::User(user) => UserId::new(user).map(Recipient::User).ok_or(IdError::User),
        send::To::Conversation(name) => name.parse().map(Recipient::Conversation),
    }
}

fn typing_to(to: typing::To) -> Result<Recipient, IdError> {
    match to {
        typing::To::User(user) => recipient(send::To::User(user)),
        typing::To::Conversation(name) => recipient(send::To::Conversation(name)),
    }
}

fn decode_watch(users: &[u64]) -> Result<ClientFrame, FrameError> {
    let user = |(at, number): (usize, &u64)| {
        UserId::new(*number).ok_or_else(|| bad_field(&format!("users[{at}]"), &IdError::User.to_string()))
    };
    users.iter().enumerate().map(user).collect::<Result<_, _>>().map(ClientFrame::Watch)
}

fn decode_reply(reply: MessageRef) -> Result<ReplyTo, FrameError> {
    let from = UserId::new(reply.sender).ok_or_else(|| bad_field("reply_to.sender", &IdError::User.to_string()))?;
    let id = message_id(&reply.id).map_err(|why| bad_field("reply_to.id", &why.to_string()))?;
    Ok(ReplyTo { from, id })
}

fn message_id(bytes: &[u8]) -> Result<MessageId, IdError> {
    MessageId::from_client(bytes).ok_or(IdError::Message)
}

fn conversation(name: &str) -> Result<ConversationId, FrameError> {
    if name.is_empty() {
        return Err(missing("conversation"));
    }
    name.parse().map_err(|why: IdError| bad_field("conversation", &why.to_string()))
}
