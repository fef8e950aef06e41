//! Frames to bytes: WebSocket messages, or events of a stream over HTTP. Many frames go into one buffer and out in one system call; the buffer
//! is the thread's, a connection keeps one only while its socket does not take everything.

use std::cell::Cell;

use fastwebsockets::{Frame, OpCode, Payload};
use protocol::codec::Encoding;
use protocol::frame::ServerFrame;
use protocol::record::Event;
use protocol::{CloseCode, Seq};

/// Longest head of an unmasked frame.
const HEAD_MAX: usize = 10;
/// Room left for the head before the payload's length is known: right for 126 to 65,535 bytes.
const HEAD_GUESS: usize = 4;
/// A buffer larger than this is not kept for the next connection.
const KEEP_BYTES_MAX: usize = 256 * 1024;

thread_local!(static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) });

/// How frames stand on the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// WebSocket messages (RFC 6455), in this encoding.
    WebSocket(Encoding),
    /// Server-sent events (HTML standard, section 9.2): the type as `event`, the JSON as `data`, a mailbox's seq as `id`. Nothing comes up.
    EventStream,
}

impl Framing {
    /// The encoding of the frames themselves.
    pub const fn encoding(self) -> Encoding {
        match self {
            Self::WebSocket(encoding) => encoding,
            Self::EventStream => Encoding::Json,
        }
    }
}

/// Frames on their way out.
#[derive(Debug)]
pub struct Frames {
    bytes: Vec<u8>,
    framing: Framing,
}

impl Frames {
    /// An empty buffer of this thread.
    pub fn borrow(framing: Framing) -> Self {
        Self { bytes: SCRATCH.take(), framing }
    }

    /// Goes on behind what the socket has not taken yet.
    pub const fn behind(bytes: Vec<u8>, framing: Framing) -> Self {
        Self { bytes, framing }
    }

    /// What is to be written.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Gives the buffer back to the thread.
    pub fn give_back(mut self) {
        if self.bytes.capacity() <= KEEP_BYTES_MAX {
            self.bytes.clear();
            SCRATCH.set(self.bytes);
        }
    }

    /// Keeps what the socket did not take, and gives the rest back.
    pub fn keep_from(mut self, written: usize) -> Vec<u8> {
        let rest = self.bytes.split_off(written);
        self.give_back();
        rest
    }

    /// A server's frame.
    pub fn server(&mut self, frame: &ServerFrame) {
        match self.framing {
            Framing::WebSocket(encoding) => self.message(encoding, |bytes| encoding.encode(frame, bytes)),
            Framing::EventStream => self.sent_event(frame.name(), None, |bytes| Encoding::Json.encode(frame, bytes)),
        }
    }

    /// An event.
    pub fn event(&mut self, event: &Event) {
        match self.framing {
            Framing::WebSocket(encoding) => self.message(encoding, |bytes| encoding.event(event, bytes)),
            Framing::EventStream => self.sent_event("event", Some(event.seq), |bytes| Encoding::Json.event(event, bytes)),
        }
    }

    /// A sign of life that asks for one.
    pub fn ping(&mut self) {
        match self.framing {
            Framing::WebSocket(_) => self.raw(OpCode::Ping, b""),
            // a comment: whoever reads the stream drops it
            Framing::EventStream => self.bytes.extend_from_slice(b":\n\n"),
        }
    }

    /// A data frame whose payload is written in place.
    fn message(&mut self, encoding: Encoding, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; HEAD_GUESS]);
        write(&mut self.bytes);
        let payload_at = start + HEAD_GUESS;
        let opcode = if encoding.is_text() { OpCode::Text } else { OpCode::Binary };
        let (head, size) = head(opcode, &self.bytes[payload_at..]);
        self.bytes.splice(start..payload_at, head[..size].iter().copied());
    }

    /// One event of a stream. JSON has no line break: it escapes them in texts, and none is written between.
    fn sent_event(&mut self, name: &str, id: Option<Seq>, data: impl FnOnce(&mut Vec<u8>)) {
        if let Some(id) = id {
            self.line("id: ", &id.to_string());
        }
        self.line("event: ", name);
        self.bytes.extend_from_slice(b"data: ");
        data(&mut self.bytes);
        self.bytes.extend_from_slice(b"\n\n");
    }

    fn line(&mut self, field: &str, value: &str) {
        for part in [field, value, "\n"] {
            self.bytes.extend_from_slice(part.as_bytes());
        }
    }

    /// A WebSocket frame as it is: control frames, and the echo of the conformance tests.
    pub fn raw(&mut self, opcode: OpCode, payload: &[u8]) {
        let (head, size) = head(opcode, payload);
        self.bytes.extend_from_slice(&head[..size]);
        self.bytes.extend_from_slice(payload);
    }

    /// A close frame.
    pub fn close(&mut self, code: CloseCode) {
        self.close_with(code.number(), code.name());
    }

    /// A close frame with any code. On a stream it is the last event: HTTP has no word for why a body ends.
    pub fn close_with(&mut self, code: u16, reason: &str) {
        match self.framing {
            Framing::WebSocket(_) => {
                let payload = [&code.to_be_bytes(), reason.as_bytes()].concat();
                self.raw(OpCode::Close, &payload);
            }
            Framing::EventStream => self.sent_event("close", None, |bytes| {
                bytes.extend_from_slice(format!("{{\"type\":\"close\",\"code\":{code},\"reason\":\"{reason}\"}}").as_bytes());
            }),
        }
    }
}

fn head(opcode: OpCode, payload: &[u8]) -> ([u8; HEAD_MAX], usize) {
    let mut head = [0; HEAD_MAX];
    let size = Frame::new(true, opcode, None, Payload::Borrowed(payload)).fmt_head(&mut head);
    (head, size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_has_its_head() {
        for length in [0, 1, 125, 126, 65_535, 65_536, 100_000] {
            let mut frames = Frames::borrow(Framing::WebSocket(Encoding::Json));
            frames.raw(OpCode::Ping, b"x");
            frames.message(Encoding::Json, |bytes| bytes.extend(std::iter::repeat_n(b'a', length)));
            let mut want = vec![0x89, 1, b'x', 0x81];
            match length {
                0..126 => want.push(length as u8),
                126..65_536 => want.extend([&[126][..], &(length as u16).to_be_bytes()].concat()),
                _ => want.extend([&[127][..], &(length as u64).to_be_bytes()].concat()),
            }
            want.extend(std::iter::repeat_n(b'a', length));
            assert_eq!(frames.bytes(), want, "{length}");
            frames.give_back();
        }
    }
}
