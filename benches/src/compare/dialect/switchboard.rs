//! Switchboard's JSON (`docs/protocol.md`): each client a user with one device, from its mailbox's beginning.

use anyhow::bail;
use uuid::Uuid;

use super::{Dialect, Seen, Session, after, number};
use crate::compare::websocket::{Opening, TEXT};

/// Events between acknowledgements; the contract wants one at least every 64.
const ACKNOWLEDGE_EVERY: u64 = 32;

pub(crate) struct Switchboard {
    /// One for each client.
    pub(crate) tokens: Vec<String>,
}

/// Users are counted from 1, clients from 0.
fn user(client: usize) -> usize {
    client + 1
}

impl Dialect for Switchboard {
    fn opening(&self, client: usize) -> Opening {
        Opening { path: "/ws".into(), protocol: Some("switchboard.v1.json"), bearer: self.tokens.get(client).cloned() }
    }

    fn opcode(&self) -> u8 {
        TEXT
    }

    fn session(&self, client: usize) -> Box<dyn Session> {
        Box::new(Attached { own: format!(r#""from":"{}""#, user(client)).into_bytes(), acknowledged: 0 })
    }

    fn send(&self, to: usize, _due: u64, body: &str, out: &mut Vec<u8>) {
        let (id, to) = (Uuid::now_v7(), user(to));
        let frame = format!(r#"{{"type":"send","id":"{id}","to":"u:{to}","kind":"text","body":{{"text":"{body}"}}}}"#);
        out.extend_from_slice(frame.as_bytes());
    }
}

struct Attached {
    /// What marks an event of the client's own message: those come back too.
    own: Vec<u8>,
    acknowledged: u64,
}

impl Session for Attached {
    fn hello(&mut self) -> Option<Vec<u8>> {
        Some(br#"{"type":"hello","device":"bench","cursor":0}"#.to_vec())
    }

    fn take(&mut self, payload: &[u8], seen: &mut Seen) -> anyhow::Result<()> {
        let kind = payload.strip_prefix(br#"{"type":""#).unwrap_or_default();
        if kind.starts_with(b"event\"") {
            if after(payload, &self.own).is_none() {
                seen.delivered.extend(after(payload, br#""text":""#).and_then(|at| super::due(&payload[at..])));
            }
            let seq = number(payload, br#""seq":"#).unwrap_or(0);
            if seq >= self.acknowledged + ACKNOWLEDGE_EVERY {
                self.acknowledged = seq;
                seen.replies.push(format!(r#"{{"type":"received","seq":{seq}}}"#).into_bytes());
            }
        } else if kind.starts_with(b"accepted\"") {
            seen.confirmed += 1;
        } else if kind.starts_with(b"live\"") {
            seen.ready = true;
        } else if kind.starts_with(b"refused\"") || kind.starts_with(b"error\"") {
            bail!("{}", String::from_utf8_lossy(payload));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::take;
    use super::*;

    #[test]
    fn events_of_others_count_and_are_acknowledged() {
        let dialect = Switchboard { tokens: Vec::new() };
        let mut session = dialect.session(41);
        let event = |seq: u64, from: u64| {
            let text = super::super::body(77, 30);
            format!(
                r#"{{"type":"event","seq":{seq},"event":"message","conversation":"d:42:43","position":"9","from":"{from}","kind":"text","body":{{"text":"{text}"}}}}"#
            )
        };
        assert!(take(&mut *session, r#"{"type":"live","head":0}"#).ready);
        assert_eq!(take(&mut *session, &event(1, 43)).delivered, [77]);
        assert_eq!(take(&mut *session, &event(2, 42)).delivered, [] as [u64; 0], "its own");
        assert!(take(&mut *session, &event(31, 43)).replies.is_empty());
        assert_eq!(take(&mut *session, &event(32, 43)).replies, [br#"{"type":"received","seq":32}"#.to_vec()]);
        assert!(take(&mut *session, &event(33, 43)).replies.is_empty());
        assert_eq!(take(&mut *session, r#"{"type":"accepted","id":"x","conversation":"d:42:43"}"#).confirmed, 1);
        let refused = br#"{"type":"refused","id":"x","code":"rate","final":false}"#;
        assert!(session.take(refused, &mut Seen::default()).is_err());
    }
}
