//! XMPP over WebSocket (RFC 7395): SASL PLAIN, one resource, stream management (XEP-0198) with a request after each message, as a chat
//! client does that wants to know what arrived at its server.

use anyhow::bail;

use super::{Dialect, Seen, Session, after, number};
use crate::compare::websocket::{Opening, TEXT};

/// The accounts: `u0`, `u1`, … of this host, all with this password.
pub(crate) const HOST: &str = "localhost";
pub(crate) const PASSWORD: &str = "secret";

pub(crate) struct Xmpp;

impl Dialect for Xmpp {
    fn opening(&self, _client: usize) -> Opening {
        Opening { path: "/ws".into(), protocol: Some("xmpp"), bearer: None }
    }

    fn opcode(&self) -> u8 {
        TEXT
    }

    fn session(&self, client: usize) -> Box<dyn Session> {
        Box::new(Stream { client, step: Step::Opened, handled: 0, confirmed: 0 })
    }

    fn send(&self, to: usize, due: u64, body: &str, out: &mut Vec<u8>) {
        let stanza =
            format!("<message xmlns='jabber:client' to='u{to}@{HOST}' type='chat' id='{due:x}'><body>{body}</body></message>");
        out.extend_from_slice(stanza.as_bytes());
    }

    fn then(&self) -> Option<&'static [u8]> {
        Some(b"<r xmlns='urn:xmpp:sm:3'/>")
    }
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Step {
    Opened,
    Success,
    Reopened,
    Bound,
    Enabled,
    /// Presence comes back to who sent it: from then on messages do too.
    Present,
    In,
}

struct Stream {
    client: usize,
    step: Step,
    /// Stanzas of the server since stream management was on.
    handled: u32,
    confirmed: u64,
}

/// The name of the element a frame holds: RFC 7395 allows one a frame, and ejabberd prints attributes behind it.
fn name(payload: &[u8]) -> &[u8] {
    let rest = payload.strip_prefix(b"<").unwrap_or_default();
    let end = rest.iter().position(|byte| matches!(byte, b' ' | b'>' | b'/')).unwrap_or(rest.len());
    &rest[..end]
}

/// `\0user\0password` in base64.
fn plain(client: usize) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let secret = format!("\0u{client}\0{PASSWORD}");
    let mut out = String::new();
    for three in secret.as_bytes().chunks(3) {
        let bits = three.iter().enumerate().fold(0_u32, |bits, (at, byte)| bits | u32::from(*byte) << (16 - 8 * at));
        for at in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * at) & 63) as usize];
            out.push(if at <= three.len() { char::from(letter) } else { '=' });
        }
    }
    out
}

const OPEN: &str = "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='localhost' version='1.0'/>";

impl Session for Stream {
    fn hello(&mut self) -> Option<Vec<u8>> {
        Some(OPEN.into())
    }

    fn take(&mut self, payload: &[u8], seen: &mut Seen) -> anyhow::Result<()> {
        let element = name(payload);
        match element {
            b"stream:error" | b"failure" | b"failed" | b"close" => bail!("XMPP: {}", String::from_utf8_lossy(payload)),
            b"r" => seen.replies.push(format!("<a xmlns='urn:xmpp:sm:3' h='{}'/>", self.handled).into()),
            b"a" => {
                let confirmed = number(payload, b" h='").unwrap_or(self.confirmed);
                seen.confirmed += confirmed.saturating_sub(self.confirmed);
                self.confirmed = self.confirmed.max(confirmed);
            }
            b"message" | b"presence" | b"iq" if self.step > Step::Enabled => self.handled = self.handled.wrapping_add(1),
            _ => {}
        }
        if element == b"message" {
            if after(payload, b"type='error'").is_some() {
                bail!("XMPP: {}", String::from_utf8_lossy(payload));
            }
            seen.delivered.extend(after(payload, b"<body>").and_then(|at| super::due(&payload[at..])));
        }
        self.advance(element, seen);
        Ok(())
    }
}

impl Stream {
    /// The way in, one answer after the other.
    fn advance(&mut self, element: &[u8], seen: &mut Seen) {
        let (next, say) = match (self.step, element) {
            (Step::Opened, b"stream:features") => {
                let auth =
                    format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{}</auth>", plain(self.client));
                (Step::Success, auth)
            }
            (Step::Success, b"success") => (Step::Reopened, OPEN.to_owned()),
            (Step::Reopened, b"stream:features") => {
                let bind = "<iq xmlns='jabber:client' type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>bench</resource></bind></iq>";
                (Step::Bound, bind.to_owned())
            }
            (Step::Bound, b"iq") => (Step::Enabled, "<enable xmlns='urn:xmpp:sm:3'/>".to_owned()),
            (Step::Enabled, b"enabled") => (Step::Present, "<presence xmlns='jabber:client'/>".to_owned()),
            (Step::Present, b"presence") => {
                self.step = Step::In;
                seen.ready = true;
                return;
            }
            _ => return,
        };
        self.step = next;
        seen.replies.push(say.into_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::take;
    use super::*;

    #[test]
    fn the_secret_is_base64() {
        assert_eq!(plain(1), "AHUxAHNlY3JldA==");
        assert_eq!(plain(12), "AHUxMgBzZWNyZXQ=");
        assert_eq!(plain(123), "AHUxMjMAc2VjcmV0");
    }

    #[test]
    fn elements_are_told_apart() {
        assert_eq!(name(b"<r xmlns='urn:xmpp:sm:3'/>"), b"r");
        assert_eq!(name(b"<success/>"), b"success");
        assert_eq!(name(b"<stream:features><bind/>"), b"stream:features");
        assert_eq!(name(b"<a>"), b"a");
        assert_eq!(name(b"none"), b"");
    }

    #[test]
    fn the_way_in_and_the_counts_of_stream_management() {
        let mut session = Xmpp.session(1);
        let said = |seen: Seen| seen.replies.into_iter().map(|one| String::from_utf8(one).unwrap()).collect::<String>();
        assert!(take(&mut *session, "<open xmlns='x'/>").replies.is_empty());
        assert!(said(take(&mut *session, "<stream:features/>")).contains(">AHUxAHNlY3JldA==</auth>"));
        assert_eq!(said(take(&mut *session, "<success xmlns='x'/>")), OPEN);
        assert!(said(take(&mut *session, "<stream:features/>")).contains("<bind"));
        assert!(said(take(&mut *session, "<iq type='result'/>")).starts_with("<enable"));
        assert!(said(take(&mut *session, "<enabled/>")).starts_with("<presence"));
        assert!(take(&mut *session, "<presence from='x'/>").ready);
        let body = super::super::body(9, 20);
        assert_eq!(take(&mut *session, &format!("<message from='u2'><body>{body}</body></message>")).delivered, [9]);
        assert!(said(take(&mut *session, "<r xmlns='urn:xmpp:sm:3'/>")).contains("h='2'"), "the presence and the message");
        assert_eq!(take(&mut *session, "<a h='3' xmlns='urn:xmpp:sm:3'/>").confirmed, 3);
        assert_eq!(take(&mut *session, "<a xmlns='urn:xmpp:sm:3' h='5'/>").confirmed, 2);
        assert!(session.take(b"<message type='error'/>", &mut Seen::default()).is_err());
    }
}
