//! What is checked of a frame in every encoding, and the errors that say so. An encoding reads fields; whether they are right is said here.

use crate::error_code::ErrorCode;
use crate::frame::{ClientFrame, FrameError, Recipient, Send};
use crate::id::{IdError, MessageId};
use crate::record::{Content, ReplyTo};

/// The fields of a send, as far as an encoding could read them.
pub(super) struct SendFields<R> {
    /// To whom, in the encoding's form.
    pub(super) to: Option<R>,
    /// The text of the body; or what is wrong with body or kind.
    pub(super) text: Result<String, FrameError>,
    /// What it answers; or what is wrong with it.
    pub(super) reply_to: Result<Option<ReplyTo>, FrameError>,
}

/// A send. Once its id is known, every error carries it.
pub(super) fn send<R>(
    id: Option<Result<MessageId, IdError>>,
    fields: SendFields<R>,
    recipient: impl FnOnce(R) -> Result<Recipient, IdError>,
) -> Result<ClientFrame, FrameError> {
    let id = id.ok_or_else(|| missing("id"))?.map_err(|why| error(ErrorCode::BadId, Some("id"), &why.to_string()))?;
    let send = || {
        let to = to(fields.to, recipient)?;
        Ok(ClientFrame::Send(Send { id, to, content: text(fields.text?)?, reply_to: fields.reply_to? }))
    };
    send().map_err(|why| with_id(why, Some(id)))
}

/// To whom something goes.
pub(super) fn to<R>(named: Option<R>, recipient: impl FnOnce(R) -> Result<Recipient, IdError>) -> Result<Recipient, FrameError> {
    let bad = |_| error(ErrorCode::BadRecipient, Some("to"), "\"to\" is \"u:<user>\" or \"d:<lower>:<higher>\"");
    recipient(named.ok_or_else(|| missing("to"))?).map_err(bad)
}

fn text(text: String) -> Result<Content, FrameError> {
    if text.contains('\0') {
        return Err(bad_field("body.text", "text has no NUL"));
    }
    Ok(Content::Text(text))
}

/// A kind of body that this build does not know.
pub(super) fn unknown_kind() -> FrameError {
    bad_field("kind", "this server knows the kind \"text\"")
}

/// A type of frame that this build does not know.
pub(super) fn unknown_type() -> FrameError {
    error(ErrorCode::UnknownType, Some("type"), "no such type")
}

pub(super) fn missing(field: &str) -> FrameError {
    bad_field(field, "missing")
}

pub(super) fn bad_field(field: &str, message: &str) -> FrameError {
    error(ErrorCode::BadField, Some(field), message)
}

pub(super) fn error(code: ErrorCode, field: Option<&str>, message: &str) -> FrameError {
    FrameError { code, field: field.map(str::to_owned), message: message.to_owned(), id: None }
}

pub(super) fn with_id(error: FrameError, id: Option<MessageId>) -> FrameError {
    FrameError { id, ..error }
}
