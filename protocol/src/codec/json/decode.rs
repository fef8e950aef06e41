//! Reading a client's JSON. Two passes: which `type` (and that it is one shallow object), then that type's own fields, so that an error can
//! name the field and unknown fields cost nothing.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::codec::check::{self, SendFields, error, missing, with_id};
use crate::error_code::ErrorCode;
use crate::frame::{ClientFrame, FrameError, Hello, Recipient};
use crate::id::{ConversationId, DeviceName, IdError, MessageId, Position, UserId};
use crate::limits::NESTING_MAX;
use crate::record::ReplyTo;

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(rename = "type", borrow)]
    kind: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct JsonHello {
    token: Option<String>,
    device: Option<DeviceName>,
    epoch: Option<JsonU64>,
    cursor: Option<u64>,
    rev: Option<JsonU64>,
    version: Option<u64>,
}

#[derive(Deserialize)]
struct JsonReply {
    from: UserId,
    id: MessageId,
}

#[derive(Deserialize)]
struct JsonBody {
    text: Option<String>,
}

#[derive(Deserialize)]
struct JsonSend {
    id: Option<String>,
    to: Option<String>,
    kind: Option<String>,
    body: Option<JsonBody>,
    reply_to: Option<JsonReply>,
}

#[derive(Deserialize)]
struct JsonReceived {
    seq: Option<u64>,
}

#[derive(Deserialize)]
struct JsonRead {
    conversation: Option<ConversationId>,
    position: Option<Position>,
}

#[derive(Deserialize)]
struct JsonTyping {
    to: Option<String>,
}

#[derive(Deserialize)]
struct JsonWatch {
    users: Option<Vec<UserId>>,
}

#[derive(Deserialize)]
struct JsonPage {
    conversation: Option<ConversationId>,
    before: Option<Position>,
    limit: Option<u32>,
}

/// A 64-bit number as a decimal string.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct JsonU64(u64);

impl TryFrom<String> for JsonU64 {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse::<Position>().map(|number| Self(number.get()))
    }
}

/// Reads a frame.
///
/// # Errors
/// [`FrameError`], always with a code of the closed list.
pub fn decode(bytes: &[u8]) -> Result<ClientFrame, FrameError> {
    one_shallow_object(bytes)?;
    let head: Head<'_> = serde_json::from_slice(bytes).map_err(|why| not_a_frame(&why))?;
    match head.kind.as_deref() {
        Some(kind) => fields_of(kind, bytes),
        None => Err(error(ErrorCode::BadRequest, Some("type"), "a frame has a \"type\"")),
    }
}

/// Reads a frame whose type is known from elsewhere, such as the path of a request: the same fields, the same checks; a `type` in it is ignored.
///
/// # Errors
/// [`FrameError`], always with a code of the closed list.
pub fn decode_as(kind: &str, bytes: &[u8]) -> Result<ClientFrame, FrameError> {
    one_shallow_object(bytes)?;
    // what is no JSON at all is told apart from a field that is wrong
    serde_json::from_slice::<serde::de::IgnoredAny>(bytes).map_err(|why| not_a_frame(&why))?;
    fields_of(kind, bytes)
}

fn one_shallow_object(bytes: &[u8]) -> Result<(), FrameError> {
    check_depth(bytes)?;
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    if first == Some(&b'{') { Ok(()) } else { Err(error(ErrorCode::BadRequest, None, "a frame is one JSON object")) }
}

fn not_a_frame(why: &serde_json::Error) -> FrameError {
    error(ErrorCode::BadRequest, None, &format!("not a frame: {}", plain(why)))
}

fn fields_of(kind: &str, bytes: &[u8]) -> Result<ClientFrame, FrameError> {
    match kind {
        "send" => decode_send(bytes),
        "received" => {
            let seq = fields::<JsonReceived>(bytes)?.seq;
            seq.map(ClientFrame::Received).ok_or_else(|| missing("seq"))
        }
        "hello" => fields::<JsonHello>(bytes).map(|hello| {
            ClientFrame::Hello(Hello {
                token: hello.token,
                device: hello.device,
                epoch: hello.epoch.map(|epoch| epoch.0),
                cursor: hello.cursor,
                rev: hello.rev.map(|rev| rev.0),
                version: hello.version,
            })
        }),
        "read" => {
            let JsonRead { conversation, position } = fields(bytes)?;
            let conversation = conversation.ok_or_else(|| missing("conversation"))?;
            Ok(ClientFrame::Read { conversation, position: position.ok_or_else(|| missing("position"))? })
        }
        "typing" => {
            let to = fields::<JsonTyping>(bytes)?.to;
            check::to(to, |to| recipient(&to)).map(ClientFrame::Typing)
        }
        "watch" => fields::<JsonWatch>(bytes)?.users.map(ClientFrame::Watch).ok_or_else(|| missing("users")),
        "history" => {
            let JsonPage { conversation, before, limit } = fields(bytes)?;
            let conversation = conversation.ok_or_else(|| missing("conversation"))?;
            Ok(ClientFrame::History { conversation, before, limit })
        }
        "conversations" => {
            let JsonPage { before, limit, .. } = fields(bytes)?;
            Ok(ClientFrame::Conversations { before, limit })
        }
        "ping" => Ok(ClientFrame::Ping),
        _ => Err(check::unknown_type()),
    }
}

fn decode_send(bytes: &[u8]) -> Result<ClientFrame, FrameError> {
    let JsonSend { id, to, kind, body, reply_to } = fields(bytes).map_err(|why| with_id(why, id_of(bytes)))?;
    let reply_to = Ok(reply_to.map(|JsonReply { from, id }| ReplyTo { from, id }));
    check::send(id.map(|id| id.parse()), SendFields { to, text: text(kind, body), reply_to }, |to| recipient(&to))
}

fn recipient(text: &str) -> Result<Recipient, IdError> {
    match text.strip_prefix("u:") {
        Some(user) => user.parse().map(Recipient::User),
        None => text.parse().map(Recipient::Conversation),
    }
}

fn text(kind: Option<String>, body: Option<JsonBody>) -> Result<String, FrameError> {
    match kind.ok_or_else(|| missing("kind"))?.as_str() {
        "text" => body.ok_or_else(|| missing("body"))?.text.ok_or_else(|| missing("body.text")),
        _ => Err(check::unknown_kind()),
    }
}

/// The fields of one type. The fast way first; only an error pays for knowing its path.
fn fields<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, FrameError> {
    serde_json::from_slice(bytes).map_err(|_| {
        let mut json = serde_json::Deserializer::from_slice(bytes);
        match serde_path_to_error::deserialize::<_, IgnoredOr<T>>(&mut json) {
            Err(why) => {
                let path = why.path().to_string();
                error(ErrorCode::BadField, (path != ".").then_some(path.as_str()), &plain(why.inner()))
            }
            Ok(_) => error(ErrorCode::BadRequest, None, "not a frame"),
        }
    })
}

/// Reads `T` and drops it: only the error is wanted.
struct IgnoredOr<T>(std::marker::PhantomData<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for IgnoredOr<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(|_| Self(std::marker::PhantomData))
    }
}

/// The id of a send whose other fields could not be read.
fn id_of(bytes: &[u8]) -> Option<MessageId> {
    #[derive(Deserialize)]
    struct OnlyId {
        id: Option<serde_json::Value>,
    }
    serde_json::from_slice::<OnlyId>(bytes).ok()?.id?.as_str()?.parse().ok()
}

/// Refuses nesting before any parser recurses. Brackets inside strings do not count.
fn check_depth(bytes: &[u8]) -> Result<(), FrameError> {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in bytes {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'{' | b'[') => depth += 1,
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > NESTING_MAX {
            return Err(error(ErrorCode::TooDeep, None, "nested too deep"));
        }
    }
    Ok(())
}

/// serde_json's words without "at line 1 column 17" (a frame has no lines) and without the client's own text.
fn plain(why: &serde_json::Error) -> String {
    let text = why.to_string();
    text.split(" at line ").next().unwrap_or_default().chars().take(160).collect()
}
