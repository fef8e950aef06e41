//! NATS over WebSocket: each client subscribed to a subject of its own. Core NATS: at most once, in memory, no answer to a PUB.

use anyhow::{Context as _, bail, ensure};

use super::{Dialect, Seen, Session};
use crate::compare::websocket::{BINARY, Opening};

/// A line of the protocol, bytes at most. (INFO is the longest.)
const LINE_MAX: usize = 16 * 1024;
/// A payload, bytes at most.
const PAYLOAD_MAX: usize = 1 << 20;

pub(crate) struct Nats {
    pub(crate) user: &'static str,
    pub(crate) password: &'static str,
}

impl Dialect for Nats {
    fn opening(&self, _client: usize) -> Opening {
        Opening { path: "/".into(), ..Opening::default() }
    }

    fn opcode(&self) -> u8 {
        BINARY
    }

    fn session(&self, client: usize) -> Box<dyn Session> {
        let hello = format!(
            "CONNECT {{\"verbose\":false,\"pedantic\":false,\"user\":\"{}\",\"pass\":\"{}\",\"lang\":\"bench\",\"version\":\"1\",\"protocol\":1,\"echo\":true}}\r\nSUB u.{client} 1\r\nPING\r\n",
            self.user, self.password
        );
        Box::new(Subscribed { hello: Some(hello.into_bytes()), parser: Parser::default() })
    }

    fn send(&self, to: usize, _due: u64, body: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("PUB u.{to} {}\r\n{body}\r\n", body.len()).as_bytes());
    }
}

struct Subscribed {
    hello: Option<Vec<u8>>,
    parser: Parser,
}

impl Session for Subscribed {
    /// The server speaks first.
    fn hello(&mut self) -> Option<Vec<u8>> {
        None
    }

    fn take(&mut self, payload: &[u8], seen: &mut Seen) -> anyhow::Result<()> {
        self.parser.push(payload);
        while let Some(said) = self.parser.next()? {
            match said {
                Said::Info => seen.replies.extend(self.hello.take()),
                Said::Pong => seen.ready = true,
                Said::Ping => seen.replies.push(b"PONG\r\n".to_vec()),
                Said::Message(body) => seen.delivered.extend(super::due(&body)),
                Said::Fine => {}
                Said::Error(why) => bail!("NATS: {why}"),
            }
        }
        Ok(())
    }
}

/// What a server says.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Info,
    Ping,
    Pong,
    Fine,
    Message(Vec<u8>),
    Error(String),
}

/// The protocol is a stream: a WebSocket message may hold several of its messages, or a part of one.
#[derive(Debug, Default)]
struct Parser {
    buffer: Vec<u8>,
}

impl Parser {
    fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    fn next(&mut self) -> anyhow::Result<Option<Said>> {
        let Some(end) = super::after(&self.buffer, b"\r\n") else {
            ensure!(self.buffer.len() <= LINE_MAX, "NATS: a line does not end");
            return Ok(None);
        };
        let line = std::str::from_utf8(&self.buffer[..end - 2]).context("NATS: a line that is no text")?;
        let mut words = line.split_ascii_whitespace();
        let said = match words.next().unwrap_or_default() {
            "MSG" => {
                let length =
                    words.next_back().and_then(|word| word.parse::<usize>().ok()).filter(|length| *length <= PAYLOAD_MAX);
                let length = length.with_context(|| format!("NATS: {line}"))?;
                let Some(body) = self.buffer.get(end..end + length + 2) else { return Ok(None) };
                let body = body.strip_suffix(b"\r\n").context("NATS: a payload longer than it says")?.to_vec();
                self.buffer.drain(..end + length + 2);
                return Ok(Some(Said::Message(body)));
            }
            "INFO" => Said::Info,
            "PING" => Said::Ping,
            "PONG" => Said::Pong,
            "+OK" => Said::Fine,
            _ => Said::Error(line.to_owned()),
        };
        self.buffer.drain(..end);
        if self.buffer.is_empty() {
            self.buffer = Vec::new(); // idle connections are many
        }
        Ok(Some(said))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_read_however_it_is_cut() {
        let body = super::super::body(7, 20);
        let stream =
            format!("INFO {{\"a\":1}}\r\nPING\r\nMSG u.1 1 20\r\n{body}\r\nMSG u.1 1 reply.to 0\r\n\r\nPONG\r\n-ERR 'no'\r\n");
        let wanted = [
            Said::Info,
            Said::Ping,
            Said::Message(body.into_bytes()),
            Said::Message(Vec::new()),
            Said::Pong,
            Said::Error("-ERR 'no'".into()),
        ];
        for size in [1, 3, 50, 1000] {
            let (mut parser, mut seen) = (Parser::default(), Vec::new());
            for bytes in stream.as_bytes().chunks(size) {
                parser.push(bytes);
                while let Some(said) = parser.next().unwrap() {
                    seen.push(said);
                }
            }
            assert_eq!(seen, wanted, "in steps of {size}");
        }
    }

    #[test]
    fn what_cannot_be_is_an_error() {
        for text in ["MSG u.1 1 x\r\n", "MSG u.1 1 3\r\nabcde\r\n", "MSG u.1 1 99999999999\r\n"] {
            let mut parser = Parser::default();
            parser.push(text.as_bytes());
            assert!(parser.next().is_err(), "{text}");
        }
    }

    #[test]
    fn a_client_is_in_when_its_subscription_was_answered() {
        let nats = Nats { user: "u", password: "p" };
        let mut session = nats.session(3);
        let mut seen = Seen::default();
        session.take(b"INFO {}\r\n", &mut seen).unwrap();
        assert!(String::from_utf8_lossy(&seen.replies[0]).contains("SUB u.3 1\r\nPING\r\n") && !seen.ready);
        session.take(b"PONG\r\n", &mut seen).unwrap();
        assert!(seen.ready);
    }
}
