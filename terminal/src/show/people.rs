//! For people: lines with the time and a name, and words beside the ticks, so that they can be read anywhere.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use protocol::UserId;

use crate::account::Device;
use crate::core::Shown;
use crate::core::ticks::Tick;
use crate::escape;
use crate::frame::{Conversations, Event, EventKind, Page, Presence};

/// Names that are remembered.
const NAMES_MAX: usize = 1000;
/// Before the second line of a message and those after it.
const MARGIN: &str = "      | ";

pub(crate) const HELP: &str = "\
/to +4915112345678 | USER | d:LOWER:HIGHER   write to somebody; then each line is a message
/history [N]     the last messages of this conversation     /conversations   all conversations
/read            everything shown here is read              /who             is the other there
/devices         where you are signed in                    /name [NAME]     your name
/help            this                                       /quit            leave (Ctrl-D)
A message that begins with a slash: write two. Ticks: #1 accepted, delivered, read.";

/// What people are called.
#[derive(Debug)]
pub(crate) struct Names {
    me: UserId,
    known: BTreeMap<UserId, Option<String>>,
}

impl Names {
    pub(crate) fn new(me: UserId) -> Self {
        Self { me, known: BTreeMap::new() }
    }

    /// Who has to be asked about before this can be shown.
    pub(crate) fn unknown(&self, shown: &Shown) -> Vec<UserId> {
        let mut users: Vec<UserId> = match shown {
            Shown::Message { event, .. } => event.from.into_iter().collect(),
            Shown::Presence(presence) => vec![presence.user],
            Shown::Page(page) => page.events.iter().filter_map(|event| event.from).collect(),
            Shown::Conversations(list) => list.conversations.iter().filter_map(|one| self.other(&one.conversation)).collect(),
            _ => Vec::new(),
        };
        users.sort_unstable();
        users.dedup();
        users.retain(|user| *user != self.me && !self.known.contains_key(user));
        users
    }

    pub(crate) fn learn(&mut self, user: UserId, name: Option<String>) {
        if self.known.len() >= NAMES_MAX {
            self.known.pop_first();
        }
        self.known.insert(user, name);
    }

    /// Escaped.
    pub(crate) fn of(&self, user: UserId) -> String {
        match self.known.get(&user) {
            _ if user == self.me => "you".to_owned(),
            Some(Some(name)) => escape::line(name),
            _ => user.to_string(),
        }
    }

    /// The other one of a direct conversation; oneself, if there is no other.
    fn other(&self, conversation: &str) -> Option<UserId> {
        let (low, high) = conversation.strip_prefix("d:")?.split_once(':')?;
        let (low, high): (UserId, UserId) = (low.parse().ok()?, high.parse().ok()?);
        Some(if low == self.me { high } else { low })
    }

    fn conversation(&self, conversation: &str) -> String {
        self.other(conversation).map_or_else(|| escape::line(conversation), |other| self.of(other))
    }
}

/// The time of an event in this place: the day too, if it is not today.
pub(crate) fn time(at: &str, now: Timestamp, zone: &TimeZone) -> String {
    let Ok(at) = at.parse::<Timestamp>() else { return "--:--".into() };
    let (at, now) = (at.to_zoned(zone.clone()), now.to_zoned(zone.clone()));
    let format = if at.date() == now.date() { "%H:%M" } else { "%Y-%m-%d %H:%M" };
    at.strftime(format).to_string()
}

fn here(at: &str) -> String {
    time(at, Timestamp::now(), &TimeZone::system())
}

/// What is shown, or nothing.
pub(crate) fn text(shown: &Shown, names: &Names) -> Option<String> {
    Some(match shown {
        Shown::Connecting | Shown::Typing(_) | Shown::Receipt(_) | Shown::Message { echo: true, .. } => return None,
        Shown::Online => "* online".into(),
        Shown::Offline { why, retry_in_ms } => {
            format!("* offline ({}); trying again in {} s", escape::line(why), retry_in_ms.div_ceil(1000))
        }
        Shown::Queued { label: 0, .. } => return None,
        Shown::Queued { label, .. } => format!("  #{label} ... waiting"),
        Shown::Accepted { label, .. } => format!("  #{} ✓ accepted", label.as_ref()?),
        Shown::Ticked { label, tick: Tick::Delivered } => format!("  #{label} ✓✓ delivered"),
        Shown::Ticked { label, tick: Tick::Read } => format!("  #{label} ✓✓ read"),
        Shown::Ticked { tick: Tick::Accepted, .. } => return None,
        Shown::Refused { code, label, .. } => {
            format!("! {} was refused: {}", label.map_or("a message".into(), |label| format!("#{label}")), escape::line(code))
        }
        Shown::Message { event, own, .. } => message(event, *own, names),
        Shown::Presence(presence) => there(presence, names),
        Shown::Page(page) => history(page, names),
        Shown::Conversations(list) => conversations(list, names),
        Shown::Resync(_) => "* the server's mailbox has changed: some messages may come again, and some may be missing".into(),
        Shown::Error { code, message, .. } => format!("! {} ({})", escape::line(message), escape::line(code)),
        Shown::Read { conversation, .. } => format!("* read: {}", names.conversation(conversation)),
    })
}

fn message(event: &Event, own: bool, names: &Names) -> String {
    let from = event.from.map_or_else(|| "?".into(), |from| names.of(from));
    let to = if own { format!(" to {}", names.conversation(&event.conversation)) } else { String::new() };
    format!("{} {from}{to}: {}", here(&event.at), body(event))
}

fn body(event: &Event) -> String {
    match (event.event, &event.body) {
        (EventKind::Message, Some(body)) => escape::lines(&body.text, MARGIN),
        _ => "(something this client cannot show)".into(),
    }
}

fn there(presence: &Presence, names: &Names) -> String {
    let who = names.of(presence.user);
    match &presence.last_seen {
        _ if presence.online => format!("* {who} is online"),
        Some(at) => format!("* {who} was last seen {}", here(at)),
        None => format!("* {who} is offline"),
    }
}

fn history(page: &Page, names: &Names) -> String {
    let mut lines = vec![format!("--- {} ---", names.conversation(&page.conversation))];
    lines.extend(page.events.iter().map(|event| message(event, false, names)));
    lines.push(if page.before.is_some() { "--- there is more before ---".into() } else { "--- that is all ---".into() });
    lines.join("\n")
}

fn conversations(list: &Conversations, names: &Names) -> String {
    if list.conversations.is_empty() {
        return "* no conversations yet".into();
    }
    let line = |one: &crate::frame::Summary| {
        let unread = if one.unread > 0 { format!(" ({} unread)", one.unread) } else { String::new() };
        let conversation = escape::line(&one.conversation);
        format!("{}{unread} {conversation}\n    {}", names.conversation(&one.conversation), message(&one.last, false, names))
    };
    let mut lines: Vec<_> = list.conversations.iter().map(line).collect();
    if list.before.is_some() {
        lines.push("--- there are more ---".into());
    }
    lines.join("\n")
}

/// Where one is signed in.
pub(crate) fn devices(devices: &[Device]) -> String {
    let line = |one: &Device| {
        let current = if one.current { " (this one)" } else { "" };
        format!("{} {}{current}, last seen {}", escape::line(&one.device), escape::line(&one.label), here(&one.last_seen_at))
    };
    devices.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::ServerFrame;

    fn event(text: &str) -> Event {
        let frame = serde_json::json!({"type": "event", "seq": 1, "event": "message", "conversation": "d:42:43", "position": "1", "from": "43",
            "id": "01932f6e-5c1e-7c3a-9d4e-1f2a3b4c5d6e", "kind": "text", "body": {"text": text}, "at": "2026-11-21T09:00:01.123Z"});
        let ServerFrame::Event(event) = serde_json::from_value(frame).unwrap() else { panic!("an event") };
        event
    }

    #[test]
    fn a_hostile_name_and_text_cannot_leave_their_line() {
        let mut names = Names::new("42".parse().unwrap());
        names.learn("43".parse().unwrap(), Some("Bob\u{1b}[31m\n* online".into()));
        let shown = Shown::Message { event: event("hi\u{202e}\r\u{1b}]0;x\u{7}\n09:00 you: yes"), own: false, echo: false };
        let text = text(&shown, &names).unwrap();
        assert!(!text.chars().any(|c| c != '\n' && escape::is_harmful(c)), "{text:?}");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text:?}");
        assert!(lines[0].contains("Bob\\u{1b}[31m\\u{a}* online: hi\\u{202e}\\u{d}\\u{1b}]0;x\\u{7}"), "{text:?}");
        assert_eq!(lines[1], "      | 09:00 you: yes");
    }

    #[test]
    fn today_has_no_date() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        assert_eq!(time("2026-11-21T09:00:01.123Z", now, &TimeZone::UTC), "09:00");
        assert_eq!(time("2026-11-20T09:00:01.123Z", now, &TimeZone::UTC), "2026-11-20 09:00");
        assert_eq!(time("soon", now, &TimeZone::UTC), "--:--");
    }
}
