//! From a line to commands: what needs the account API (numbers, devices, names) is asked here, one line after the other.

use std::sync::Arc;
use std::time::Duration;

use protocol::{ConversationId, UserId};

use crate::account;
use crate::core::backoff::Backoff;
use crate::core::{Command, Shown};
use crate::error::Error;
use crate::frame::{History, List};
use crate::input::{Line, Recipient, Wanted};
use crate::show::people;
use crate::wire::Place;

/// How often a number is looked up before its line is given up.
const TRIES: u32 = 8;
/// A server that wants us to wait longer than this for it is not waited for.
const HINT_MS_MAX: u64 = 30_000;

/// Whom a person writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Current {
    pub(crate) other: UserId,
    pub(crate) conversation: ConversationId,
}

impl Current {
    fn to(self) -> String {
        format!("u:{}", self.other)
    }
}

/// What came of a line.
#[derive(Debug, Default)]
pub(crate) struct Served {
    pub(crate) commands: Vec<Command>,
    /// For people, escaped.
    pub(crate) say: Option<String>,
    pub(crate) complain: Option<Shown>,
    pub(crate) current: Option<Current>,
    /// Whom `current` is: their name, if they have one.
    pub(crate) named: Option<String>,
    /// A number and its user.
    pub(crate) learned: Option<(String, UserId)>,
}

impl Served {
    fn command(command: Command) -> Self {
        Self { commands: vec![command], ..Self::default() }
    }

    fn say(text: impl Into<String>) -> Self {
        Self { say: Some(text.into()), ..Self::default() }
    }

    /// The line was not taken.
    pub(crate) fn bad(code: &str, message: impl Into<String>) -> Self {
        let complain = Shown::Error { code: code.into(), message: message.into(), field: None };
        Self { commands: vec![Command::Bad], complain: Some(complain), ..Self::default() }
    }
}

/// Who serves.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) place: Arc<Place>,
    pub(crate) token: String,
    pub(crate) me: UserId,
}

impl Desk {
    /// A line of a person.
    pub(crate) async fn person(self, line: Line, current: Option<Current>) -> Served {
        let known = match line {
            Line::Nothing => Ok(Served::default()),
            Line::Bad(why) => Ok(Served { commands: Vec::new(), ..Served::bad("bad_input", why) }),
            Line::Help => Ok(Served::say(people::HELP)),
            Line::Quit => Ok(Served::command(Command::End { hurry: Some(3_000) })),
            Line::Conversations => Ok(Served::command(Command::Conversations(List { before: None, limit: 20 }))),
            Line::To(Some(recipient)) => self.turn_to(recipient).await,
            Line::Devices => account::devices(&self.place, &self.token).await.map(|list| Served::say(people::devices(&list))),
            Line::Name(name) => account::own_name(&self.place, &self.token, name.as_deref())
                .await
                .map(|name| Served::say(format!("* your name is {}", crate::escape::line(&name)))),
            Line::Say(_) | Line::To(None) | Line::History(_) | Line::Read | Line::Who => Ok(match current {
                Some(current) => here(line, current),
                None => Served {
                    commands: Vec::new(),
                    ..Served::bad("nobody", "to whom? /to +4915112345678, a user, or d:LOWER:HIGHER")
                },
            }),
        };
        known.unwrap_or_else(|why| Served { commands: Vec::new(), ..Served::bad(why.code(), why.to_string()) })
    }

    async fn turn_to(&self, recipient: Recipient) -> Result<Served, Error> {
        let (other, learned) = self.user(recipient).await?;
        let current = Current { other, conversation: ConversationId::direct(self.me, other) };
        let named = account::name_of(&self.place, &self.token, other).await;
        // presence is told of whom is watched; the one before us is
        Ok(Served { learned, named, current: Some(current), ..Served::command(Command::Watch { users: vec![other] }) })
    }

    /// A line of a program.
    pub(crate) async fn program(self, wanted: Wanted) -> Served {
        match self.wanted(wanted).await {
            Ok(served) => served,
            Err(why) => Served::bad(why.code(), why.to_string()),
        }
    }

    async fn wanted(&self, wanted: Wanted) -> Result<Served, Error> {
        Ok(match wanted {
            Wanted::Send { to, text, id, reply_to } => {
                let (user, learned) = self.user(to).await?;
                Served { learned, ..Served::command(Command::Send { id, to: format!("u:{user}"), text, reply_to }) }
            }
            Wanted::Typing { to } => {
                let (user, learned) = self.user(to).await?;
                Served { learned, ..Served::command(Command::Typing { to: format!("u:{user}") }) }
            }
            Wanted::Read { conversation, position } => Served::command(Command::Read { conversation, position }),
            Wanted::Watch { users } => Served::command(Command::Watch { users }),
            Wanted::History(history) => Served::command(Command::History(history)),
            Wanted::Conversations(list) => Served::command(Command::Conversations(list)),
        })
    }

    async fn user(&self, recipient: Recipient) -> Result<(UserId, Option<(String, UserId)>), Error> {
        match recipient {
            Recipient::User(user) => Ok((user, None)),
            Recipient::Conversation(conversation) if !conversation.has(self.me) => Err(Error::Refused {
                status: 403,
                code: "forbidden".into(),
                message: "that is not a conversation of yours".into(),
                retry_after_ms: 0,
            }),
            Recipient::Conversation(ConversationId::Direct(low, high)) => Ok((if low == self.me { high } else { low }, None)),
            Recipient::Phone(phone) => {
                let user = self.look_up(&phone).await?;
                Ok((user, Some((phone, user))))
            }
        }
    }

    /// Looks a number up, more than once if the server cannot answer now.
    async fn look_up(&self, phone: &str) -> Result<UserId, Error> {
        let mut backoff = Backoff::default();
        for _ in 1..TRIES {
            match account::look_up(&self.place, &self.token, phone).await {
                Err(why) if why.may_pass() => {
                    let hint = if let Error::Refused { retry_after_ms, .. } = &why { *retry_after_ms } else { 0 };
                    if hint > HINT_MS_MAX {
                        return Err(why);
                    }
                    let wait = backoff.next(rand::random()).max(hint);
                    tokio::time::sleep(Duration::from_millis(wait)).await;
                }
                other => return other,
            }
        }
        account::look_up(&self.place, &self.token, phone).await
    }
}

/// Lines about the conversation that is before us.
fn here(line: Line, current: Current) -> Served {
    let conversation = current.conversation.to_string();
    match line {
        Line::Say(text) => Served::command(Command::Send { id: None, to: current.to(), text, reply_to: None }),
        Line::History(limit) => Served::command(Command::History(History { conversation, before: None, limit })),
        Line::Read => Served::command(Command::ReadShown { conversation }),
        Line::Who => Served::command(Command::Watch { users: vec![current.other] }),
        _ => Served { current: Some(current), ..Served::default() },
    }
}
