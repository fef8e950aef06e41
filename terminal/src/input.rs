//! A line that was typed or piped in, and what it means.

use protocol::{ConversationId, MessageId, Position, UserId};
use serde::Deserialize;
use serde_json::Value;

use crate::args::phone;
use crate::frame::{History, List, ReplyTo};

/// Whom something is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Recipient {
    Phone(String),
    User(UserId),
    Conversation(ConversationId),
}

impl std::str::FromStr for Recipient {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with('+') {
            return phone(text).map(Self::Phone);
        }
        if text.starts_with("d:") {
            return text.parse().map(Self::Conversation).map_err(|_| "a conversation is d:LOWER:HIGHER, two users".to_owned());
        }
        let user = text.strip_prefix("u:").unwrap_or(text).parse();
        user.map(Self::User).map_err(|_| "a recipient is a phone number with its +, a user, or d:LOWER:HIGHER".to_owned())
    }
}

/// What a person typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Line {
    Nothing,
    Say(String),
    To(Option<Recipient>),
    History(u32),
    Conversations,
    Read,
    Who,
    Devices,
    Name(Option<String>),
    Help,
    Quit,
    /// And why.
    Bad(String),
}

/// Reads a line of a person. A message that begins with a slash is written with two.
pub(crate) fn person(text: &str) -> Line {
    let text = text.trim_end_matches(['\r', '\n']);
    if text.trim().is_empty() {
        return Line::Nothing;
    }
    let Some(command) = text.strip_prefix('/') else { return Line::Say(text.to_owned()) };
    if command.starts_with('/') {
        return Line::Say(command.to_owned());
    }
    let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
    let rest = rest.trim();
    match name {
        "to" if rest.is_empty() => Line::To(None),
        "to" => rest.parse().map_or_else(Line::Bad, |recipient| Line::To(Some(recipient))),
        "history" if rest.is_empty() => Line::History(20),
        "history" => match rest.parse() {
            Ok(count @ 1..=100) => Line::History(count),
            _ => Line::Bad("/history takes a number from 1 to 100".into()),
        },
        "conversations" => Line::Conversations,
        "read" => Line::Read,
        "who" => Line::Who,
        "devices" => Line::Devices,
        "name" => Line::Name((!rest.is_empty()).then(|| rest.to_owned())),
        "help" | "?" => Line::Help,
        "quit" | "exit" => Line::Quit,
        _ => Line::Bad("no such command; /help lists them, and // begins a message with a slash".into()),
    }
}

/// What a program wants.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Wanted {
    Send { to: Recipient, text: String, id: Option<MessageId>, reply_to: Option<ReplyTo> },
    Read { conversation: String, position: Position },
    Typing { to: Recipient },
    Watch { users: Vec<UserId> },
    History(History),
    Conversations(List),
}

/// Longest text of a message that is taken, bytes; the server's limit may be lower, and is told by it.
const TEXT_BYTES_MAX: usize = 64 * 1024;

#[derive(Deserialize)]
struct Send {
    to: String,
    text: String,
    id: Option<MessageId>,
    reply_to: Option<ReplyTo>,
}

#[derive(Deserialize)]
struct Read {
    conversation: ConversationId,
    position: Position,
}

#[derive(Deserialize)]
struct Typing {
    to: String,
}

#[derive(Deserialize)]
struct Watch {
    users: Vec<UserId>,
}

/// Reads a line of a program.
pub(crate) fn program(text: &str) -> Result<Wanted, String> {
    let value: Value = serde_json::from_str(text).map_err(|why| format!("not JSON: {why}"))?;
    if !value.is_object() {
        return Err("a line is one JSON object".into());
    }
    let kind = value.get("type").map_or(Some("send"), Value::as_str).unwrap_or_default().to_owned();
    match kind.as_str() {
        "send" => {
            let Send { to, text, id, reply_to } = fields(value)?;
            match text.len() {
                0 => return Err("text is empty".into()),
                1..=TEXT_BYTES_MAX => {}
                _ => return Err(format!("text is over {TEXT_BYTES_MAX} bytes")),
            }
            Ok(Wanted::Send { to: to.parse()?, text, id, reply_to })
        }
        "read" => {
            let Read { conversation, position } = fields(value)?;
            Ok(Wanted::Read { conversation: conversation.to_string(), position })
        }
        "typing" => Ok(Wanted::Typing { to: fields::<Typing>(value)?.to.parse()? }),
        "watch" => Ok(Wanted::Watch { users: fields::<Watch>(value)?.users }),
        "history" => Ok(Wanted::History(fields(value)?)),
        "conversations" => Ok(Wanted::Conversations(fields(value)?)),
        _ => Err("type is send (or absent), read, typing, watch, history or conversations".into()),
    }
}

fn fields<T: for<'de> Deserialize<'de>>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|why| why.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_says_or_commands() {
        assert_eq!(person("hi\n"), Line::Say("hi".into()));
        assert_eq!(person("//etc is a folder"), Line::Say("/etc is a folder".into()));
        assert_eq!(person("  \n"), Line::Nothing);
        assert_eq!(person("/to +4915112345678"), Line::To(Some(Recipient::Phone("+4915112345678".into()))));
        assert_eq!(person("/to 43"), Line::To(Some(Recipient::User("43".parse().unwrap()))));
        assert_eq!(person("/to d:42:43"), Line::To(Some(Recipient::Conversation("d:42:43".parse().unwrap()))));
        assert_eq!(person("/history"), Line::History(20));
        assert_eq!(person("/name  Ann Lee "), Line::Name(Some("Ann Lee".into())));
        for bad in ["/to +0", "/to x", "/to d:43:42", "/history 0", "/history 101", "/nonsense", "/ hi"] {
            assert!(matches!(person(bad), Line::Bad(_)), "{bad}");
        }
    }

    #[test]
    fn a_program_sends_without_a_type() {
        let Ok(Wanted::Send { to, text, id, .. }) = program(r#"{"to":"+4915112345678","text":"hi","more":1}"#) else { panic!() };
        assert_eq!((to, text.as_str(), id), (Recipient::Phone("+4915112345678".into()), "hi", None));
        assert!(matches!(program(r#"{"type":"watch","users":["43"]}"#), Ok(Wanted::Watch { .. })));
        assert!(matches!(program(r#"{"type":"read","conversation":"d:42:43","position":"7"}"#), Ok(Wanted::Read { .. })));
        for bad in [
            "",
            "[]",
            "hi",
            r#"{"type":7,"to":"43","text":"hi"}"#,
            r#"{"type":"hello"}"#,
            r#"{"to":"43"}"#,
            r#"{"to":"43","text":""}"#,
            r#"{"to":"x","text":"hi"}"#,
            r#"{"to":"43","text":"hi","id":"00000000-0000-0000-0000-000000000000"}"#,
            r#"{"type":"read","conversation":"d:43:42","position":"7"}"#,
        ] {
            assert!(program(bad).is_err(), "{bad}");
        }
    }
}
