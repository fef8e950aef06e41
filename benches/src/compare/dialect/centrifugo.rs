//! Centrifugo's JSON over WebSocket: each client a user with a token whom the server subscribes to a channel of its own, without history.
//! A message is a publication into the partner's channel; the server answers it when it has gone out.

use anyhow::{bail, ensure};

use super::{Dialect, Seen, Session, after};
use crate::compare::websocket::{Opening, TEXT};

/// The namespace of the channels: `inbox:#7` is the one of user 7.
pub(crate) const NAMESPACE: &str = "inbox";

/// What the server asks, and what it wants to hear: a client that does not answer is cut off.
const PING: &[u8] = b"{}";

pub(crate) struct Centrifugo {
    /// One for each client.
    pub(crate) tokens: Vec<String>,
}

/// The user of a client, as its token names it.
pub(crate) fn user(client: usize) -> String {
    client.to_string()
}

fn channel(client: usize) -> String {
    format!("{NAMESPACE}:#{}", user(client))
}

impl Dialect for Centrifugo {
    fn opening(&self, _client: usize) -> Opening {
        Opening { path: "/connection/websocket".into(), ..Opening::default() }
    }

    fn opcode(&self) -> u8 {
        TEXT
    }

    fn session(&self, client: usize) -> Box<dyn Session> {
        let token = self.tokens.get(client).map(String::as_str).unwrap_or_default();
        let hello = format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#);
        Box::new(Connected { hello: Some(hello.into_bytes()), own: format!(r#""{}""#, channel(client)).into_bytes() })
    }

    fn send(&self, to: usize, due: u64, body: &str, out: &mut Vec<u8>) {
        // the number of a command may be anything but 0
        let (id, channel) = (due as u32 | 1, channel(to));
        let command = format!(r#"{{"id":{id},"publish":{{"channel":"{channel}","data":{{"text":"{body}"}}}}}}"#);
        out.extend_from_slice(command.as_bytes());
    }
}

struct Connected {
    hello: Option<Vec<u8>>,
    /// The channel the server must have subscribed the client to, in quotes.
    own: Vec<u8>,
}

impl Session for Connected {
    fn hello(&mut self) -> Option<Vec<u8>> {
        self.hello.take()
    }

    /// A frame may hold several replies, one a line; any of them may be a ping.
    fn take(&mut self, payload: &[u8], seen: &mut Seen) -> anyhow::Result<()> {
        payload.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).try_for_each(|line| self.line(line, seen))
    }
}

impl Connected {
    fn line(&self, line: &[u8], seen: &mut Seen) -> anyhow::Result<()> {
        let text = after(line, br#""text":""#);
        match (subject(line), text) {
            (b"", _) if line == PING => seen.replies.push(PING.to_vec()),
            (b"push", Some(at)) => seen.delivered.extend(super::due(&line[at..])),
            (b"publish", _) => seen.confirmed += 1,
            (b"connect", _) => {
                ensure!(after(line, &self.own).is_some(), "Centrifugo: no channel of its own: {}", String::from_utf8_lossy(line));
                seen.ready = true;
            }
            _ => bail!("Centrifugo: {}", String::from_utf8_lossy(line)),
        }
        Ok(())
    }
}

/// The first name in a line, that of the number of the command left out.
fn subject(line: &[u8]) -> &[u8] {
    let mut names = line.split(|byte| *byte == b'"').skip(1).step_by(2);
    names.find(|name| *name != b"id").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::tests::take;
    use super::*;

    fn push(due: u64) -> String {
        let text = super::super::body(due, 30);
        format!(
            r##"{{"push":{{"channel":"inbox:#3","pub":{{"data":{{"text":"{text}"}},"info":{{"user":"2","client":"x"}}}}}}}}"##
        )
    }

    #[test]
    fn subjects_are_told_apart() {
        assert_eq!(subject(br#"{"id":5,"publish":{}}"#), b"publish");
        assert_eq!(subject(br#"{"push":{"channel":"id"}}"#), b"push");
        assert_eq!(subject(b"{}"), b"");
    }

    #[test]
    fn a_client_is_in_with_a_channel_of_its_own() {
        let dialect = Centrifugo { tokens: (0..4).map(|client| format!("token{client}")).collect() };
        let mut session = dialect.session(3);
        assert_eq!(session.hello().unwrap(), br#"{"id":1,"connect":{"token":"token3"}}"#);
        let reply =
            |channel: &str| format!(r#"{{"id":1,"connect":{{"client":"x","subs":{{"{channel}":{{}}}},"ping":25,"pong":true}}}}"#);
        assert!(take(&mut *session, &reply("inbox:#3")).ready);
        assert!(session.take(reply("inbox:#33").as_bytes(), &mut Seen::default()).is_err(), "another's channel");
    }

    #[test]
    fn a_frame_holds_several_replies_and_every_ping_is_answered() {
        let mut session = Centrifugo { tokens: Vec::new() }.session(3);
        assert_eq!(take(&mut *session, "{}").replies, [b"{}"]);
        let seen = take(&mut *session, &[&push(7), "{}", r#"{"id":9,"publish":{}}"#, &push(8), "{}"].join("\n"));
        assert_eq!((seen.delivered, seen.confirmed), (vec![7, 8], 1));
        assert_eq!(seen.replies, [b"{}", b"{}"]);
        assert_eq!(take(&mut *session, "{}\n").replies, [b"{}"], "a line may end");
    }

    #[test]
    fn errors_and_orders_to_leave_are_errors() {
        let mut session = Centrifugo { tokens: Vec::new() }.session(3);
        for line in [
            r#"{"id":9,"error":{"code":103,"message":"permission denied"}}"#,
            r#"{"push":{"disconnect":{"code":3012,"reason":"no pong"}}}"#,
        ] {
            assert!(session.take(line.as_bytes(), &mut Seen::default()).is_err(), "{line}");
        }
    }

    #[test]
    fn a_message_goes_into_the_partners_channel() {
        let mut out = Vec::new();
        Centrifugo { tokens: Vec::new() }.send(2, 4, "hi", &mut out);
        assert_eq!(out, br##"{"id":5,"publish":{"channel":"inbox:#2","data":{"text":"hi"}}}"##);
    }
}
