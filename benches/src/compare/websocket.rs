//! A client's side of WebSocket, just enough and the same for every peer: the upgrade, masked frames out, frames in.
//!
//! The generator must cost each peer's run the same, so it uses no library of any of them.

use anyhow::{Context as _, bail, ensure};

/// Frame types that are used (RFC 6455, section 5.2).
pub(crate) const CONTINUATION: u8 = 0;
pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// Clients must mask. Over loopback nobody needs to be surprised by the mask, and a server's work does not depend on its value.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
/// The example of the RFC: servers may not look into it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// The longest message that is taken, bytes.
const MESSAGE_MAX: usize = 1 << 20;
/// The longest answer to an upgrade, bytes.
const HEAD_MAX: usize = 16 * 1024;

/// Where and how a client enters.
#[derive(Debug, Clone, Default)]
pub(crate) struct Opening {
    pub(crate) path: String,
    pub(crate) protocol: Option<&'static str>,
    pub(crate) bearer: Option<String>,
}

/// The request that asks for an upgrade.
pub(crate) fn request(opening: &Opening, host: &str) -> String {
    let mut request = format!(
        "GET {} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n",
        opening.path
    );
    if let Some(protocol) = opening.protocol {
        request += &format!("Sec-WebSocket-Protocol: {protocol}\r\n");
    }
    if let Some(bearer) = &opening.bearer {
        request += &format!("Authorization: Bearer {bearer}\r\n");
    }
    request + "\r\n"
}

/// How many bytes the answer takes, once it is whole.
pub(crate) fn response(bytes: &[u8]) -> anyhow::Result<Option<usize>> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        ensure!(bytes.len() <= HEAD_MAX, "the answer to the upgrade does not end");
        return Ok(None);
    };
    let head = String::from_utf8_lossy(&bytes[..end]);
    ensure!(head.starts_with("HTTP/1.1 101"), "no upgrade: {}", head.lines().next().unwrap_or_default());
    ensure!(head.contains(ACCEPT), "a wrong Sec-WebSocket-Accept");
    Ok(Some(end + 4))
}

/// Appends one masked frame.
pub(crate) fn encode(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.push(0x80 | opcode);
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend((length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    out.extend(MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// Frames out of bytes.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    buffer: Vec<u8>,
    read: usize,
    /// A message that came in parts, so far.
    parts: Option<(u8, Vec<u8>)>,
}

impl Decoder {
    /// Takes bytes in.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.read == self.buffer.len() {
            self.buffer.clear();
        } else {
            self.buffer.drain(..self.read);
        }
        self.read = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Gives its memory back when nothing is in it: idle connections are many.
    pub(crate) fn rest(&mut self) {
        if self.read == self.buffer.len() && self.buffer.capacity() > 0 {
            self.buffer = Vec::new();
            self.read = 0;
        }
    }

    /// The next whole message or control frame: its type and its payload.
    pub(crate) fn next(&mut self) -> anyhow::Result<Option<(u8, Vec<u8>)>> {
        loop {
            let Some((last, opcode, payload)) = self.frame()? else { return Ok(None) };
            if opcode >= CLOSE || last && opcode != CONTINUATION {
                return Ok(Some((opcode, payload)));
            }
            let mut parts = match (opcode, self.parts.take()) {
                (CONTINUATION, parts) => parts.context("a continuation of nothing")?,
                (_, None) => (opcode, Vec::new()),
                _ => bail!("a new message inside another"),
            };
            parts.1.extend_from_slice(&payload);
            ensure!(parts.1.len() <= MESSAGE_MAX, "a message of more than {MESSAGE_MAX} bytes");
            if last {
                return Ok(Some(parts));
            }
            self.parts = Some(parts);
        }
    }

    fn frame(&mut self) -> anyhow::Result<Option<(bool, u8, Vec<u8>)>> {
        let bytes = &self.buffer[self.read..];
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        ensure!(first & 0x70 == 0, "a reserved bit is set");
        ensure!(second & 0x80 == 0, "a server must not mask");
        let (length, head) = match second & 0x7f {
            126 => match rest.first_chunk() {
                Some(length) => (usize::from(u16::from_be_bytes(*length)), 4),
                None => return Ok(None),
            },
            127 => match rest.first_chunk() {
                Some(length) => (usize::try_from(u64::from_be_bytes(*length))?, 10),
                None => return Ok(None),
            },
            length => (usize::from(length), 2),
        };
        ensure!(length <= MESSAGE_MAX, "a frame of {length} bytes");
        let (last, opcode) = (first & 0x80 != 0, first & 0x0f);
        let Some(payload) = bytes.get(head..head + length) else { return Ok(None) };
        let payload = payload.to_vec();
        self.read += head + length;
        Ok(Some((last, opcode, payload)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a server sends: the same, unmasked.
    fn server(last: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![if last { 0x80 } else { 0 } | opcode];
        match payload.len() {
            length @ 0..=125 => bytes.push(length as u8),
            length => {
                bytes.push(126);
                bytes.extend((length as u16).to_be_bytes());
            }
        }
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn frames_come_out_whole_however_the_bytes_arrive() {
        let long = vec![b'x'; 3000];
        let stream = [
            server(true, TEXT, b"one"),
            server(false, TEXT, b"tw"),
            server(true, PING, b"?"),
            server(true, CONTINUATION, b"o"),
            server(true, BINARY, &long),
        ]
        .concat();
        let wanted = [(TEXT, b"one".to_vec()), (PING, b"?".to_vec()), (TEXT, b"two".to_vec()), (BINARY, long)];
        for size in [1, 2, 7, 1000, 10_000] {
            let (mut decoder, mut seen) = (Decoder::default(), Vec::new());
            for bytes in stream.chunks(size) {
                decoder.push(bytes);
                while let Some(message) = decoder.next().unwrap() {
                    seen.push(message);
                }
            }
            assert_eq!(seen, wanted, "in steps of {size}");
        }
    }

    #[test]
    fn frames_that_no_server_may_send_are_errors() {
        for bytes in [[0x81, 0x80].as_slice(), &[0xc1, 0], &[0x80, 0], &[0x81, 127, 1, 0, 0, 0, 0, 0, 0, 0]] {
            let mut decoder = Decoder::default();
            decoder.push(bytes);
            assert!(decoder.next().is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn what_is_written_can_be_read_by_a_server() {
        for length in [0, 5, 125, 126, 70_000] {
            let (payload, mut out) = (vec![b'a'; length], Vec::new());
            encode(&mut out, TEXT, &payload);
            let head = out.len() - length - 4;
            let unmasked: Vec<_> = out[head + 4..].iter().zip(out[head..head + 4].iter().cycle()).map(|(a, b)| a ^ b).collect();
            assert_eq!(unmasked, payload);
            assert_eq!((out[0], out[1] & 0x80), (0x81, 0x80));
        }
    }

    #[test]
    fn only_an_upgrade_is_an_upgrade() {
        let good = format!("HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\nrest");
        assert_eq!(response(good.as_bytes()).unwrap(), Some(good.len() - 4));
        assert_eq!(response(&good.as_bytes()[..40]).unwrap(), None);
        assert!(response(b"HTTP/1.1 401 Unauthorized\r\n\r\n").is_err());
        assert!(response(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").is_err());
    }
}
