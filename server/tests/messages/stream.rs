//! A client of a stream of server-sent events, made of a socket.

use std::io::{ErrorKind, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::api::get;
use crate::raw::{self, Server};
use crate::support::PATIENCE;

/// One event of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) id: Option<u64>,
    pub(crate) event: String,
    pub(crate) data: Value,
}

/// An open stream.
pub(crate) struct Stream {
    socket: TcpStream,
    input: String,
    pub(crate) head: String,
    /// Comments that have come.
    pub(crate) comments: usize,
}

impl Stream {
    /// Opens one; its head must be good.
    pub(crate) fn open(server: &Server, token: &str, query: &str, headers: &[(&str, &str)]) -> Self {
        let stream = Self::try_open(server.address(), token, query, headers);
        assert!(stream.head.starts_with("HTTP/1.1 200 OK\r\n"), "{} {}", stream.head, stream.input);
        stream
    }

    /// Asks for one.
    pub(crate) fn try_open(address: SocketAddr, token: &str, query: &str, headers: &[(&str, &str)]) -> Self {
        let mut call = get(&format!("/v1/events{query}")).by(token);
        for (name, value) in headers {
            call = call.header(name, value);
        }
        let mut socket = TcpStream::connect(address).expect("the server listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket.write_all(&call.bytes()).expect("the request is written");
        let mut stream = Self { socket, input: String::new(), head: String::new(), comments: 0 };
        stream.head = stream.take_until("\r\n\r\n").expect("a head");
        stream
    }

    fn take_until(&mut self, end: &str) -> Option<String> {
        loop {
            if let Some(at) = self.input.find(end) {
                let taken: String = self.input.drain(..at + end.len()).collect();
                return Some(taken);
            }
            let mut buffer = [0; 16 * 1024];
            match raw::read(&mut self.socket, &mut buffer) {
                Ok(0) => return None,
                // all that these tests send is ASCII
                Ok(got) => self.input.push_str(std::str::from_utf8(&buffer[..got]).expect("ASCII")),
                Err(why) if matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    panic!("nothing comes: {:?}", self.input)
                }
                Err(_) => return None,
            }
        }
    }

    /// The next event; none: the stream has ended.
    pub(crate) fn next(&mut self) -> Option<Sent> {
        loop {
            let block = self.take_until("\n\n")?;
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            if let Some(data) = field("data") {
                let data = serde_json::from_str(data).expect("data is JSON");
                let id = field("id").map(|id| id.parse().expect("an id is a seq"));
                return Some(Sent { id, event: field("event").expect("an event has a name").to_owned(), data });
            }
            assert!(block.starts_with(':'), "{block:?}");
            self.comments += 1;
        }
    }

    /// The next event of this name, others passed over.
    pub(crate) fn until(&mut self, name: &str) -> Sent {
        loop {
            let sent = self.next().unwrap_or_else(|| panic!("the stream ended before {name}"));
            if sent.event == name {
                return sent;
            }
            assert_ne!(sent.event, "close", "before {name}: {}", sent.data);
        }
    }

    /// Everything until it ends: the code of its `close`, which must be the last.
    pub(crate) fn close_code(&mut self) -> Option<u64> {
        while let Some(sent) = self.next() {
            if sent.event == "close" {
                assert_eq!(self.next(), None, "nothing behind it");
                return sent.data["code"].as_u64();
            }
        }
        None
    }

    /// Whether the server ends the connection within this time, nothing else coming.
    pub(crate) fn ends_within(&mut self, time: Duration) -> bool {
        self.socket.set_read_timeout(Some(time)).expect("a timeout");
        matches!(raw::read(&mut self.socket, &mut [0; 64]), Ok(0))
    }

    /// Reads nothing more for ever, through a small receive buffer.
    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }
}
