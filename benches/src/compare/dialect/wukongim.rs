//! WuKongIM's binary protocol, version 6: each client a user with one device; a message goes into the person channel of its partner.
//!
//! The server encrypts each delivery with a key agreed upon when a client enters, and cannot be told not to. What a message is known by, the
//! number its sender gave it, stays plain, so the client has no need to read the rest. The other way the protocol lets a client choose, and
//! this one sends plain: work that the server is spared.

use anyhow::{Context as _, bail, ensure};

use super::{Dialect, STAMP, Seen, Session};
use crate::compare::websocket::{BINARY, Opening};

/// Kinds of packets: the upper half of the first byte.
const CONNECT: u8 = 1;
const CONNACK: u8 = 2;
const SEND: u8 = 3;
const SENDACK: u8 = 4;
const RECV: u8 = 5;
const RECVACK: u8 = 6;
const DISCONNECT: u8 = 9;

/// In the first byte of a `SEND`: it counts as unread, as chat messages do.
const UNREAD: u8 = 2;
/// In the first byte of a `CONNACK`: the version stands in front.
const VERSIONED: u8 = 1;
/// Of a message: it is not encrypted.
const PLAIN: u8 = 1 << 4;
/// The channel between two, named by the other one.
const PERSON: u8 = 1;
const WEB: u8 = 1;
const VERSION: u8 = 6;
const SUCCESS: u8 = 1;
/// The example of RFC 7748, section 6.1: the server's work does not depend on its value, and nothing is decrypted here.
const KEY: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";
/// A packet, bytes at most.
const PACKET_MAX: usize = 1 << 20;

pub(crate) struct Wukongim;

pub(crate) fn user(client: usize) -> String {
    format!("u{client}")
}

impl Dialect for Wukongim {
    fn opening(&self, _client: usize) -> Opening {
        Opening { path: "/".into(), ..Opening::default() }
    }

    fn opcode(&self) -> u8 {
        BINARY
    }

    fn session(&self, client: usize) -> Box<dyn Session> {
        let mut body = vec![VERSION, WEB];
        text(&mut body, &format!("bench-{client}"));
        text(&mut body, &user(client));
        text(&mut body, ""); // the token: the server looks at none
        body.extend([0; 8]); // the client's clock, which the server only compares
        text(&mut body, KEY);
        let mut hello = Vec::new();
        packet(&mut hello, CONNECT << 4, &body);
        Box::new(Connected { hello: Some(hello) })
    }

    fn send(&self, to: usize, due: u64, body: &str, out: &mut Vec<u8>) {
        let mut fields = vec![PLAIN];
        fields.extend((due as u32).to_be_bytes());
        text(&mut fields, &super::body(due, STAMP));
        text(&mut fields, &user(to));
        fields.push(PERSON);
        fields.extend([0; 4]); // it does not expire
        text(&mut fields, ""); // the proof of an encrypted message
        fields.extend(body.as_bytes());
        packet(out, SEND << 4 | UNREAD, &fields);
    }
}

/// Appends a short text with its length.
fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u16).to_be_bytes());
    out.extend(text.as_bytes());
}

/// Appends a packet: its length in groups of seven bits, the lowest first, a bit above for "more follow".
fn packet(out: &mut Vec<u8>, first: u8, body: &[u8]) {
    out.push(first);
    let mut length = body.len();
    while length > 0x7f {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend(body);
}

struct Connected {
    hello: Option<Vec<u8>>,
}

impl Session for Connected {
    fn hello(&mut self) -> Option<Vec<u8>> {
        self.hello.take()
    }

    fn take(&mut self, payload: &[u8], seen: &mut Seen) -> anyhow::Result<()> {
        let mut rest = Fields(payload);
        while !rest.0.is_empty() {
            let (first, body) = rest.packet()?;
            said(first, body, seen)?;
        }
        Ok(())
    }
}

/// What one packet means.
fn said(first: u8, mut body: Fields<'_>, seen: &mut Seen) -> anyhow::Result<()> {
    match first >> 4 {
        CONNACK => {
            if first & VERSIONED != 0 {
                let [version] = body.bytes()?;
                ensure!(version == VERSION, "WuKongIM: version {version} of the protocol");
            }
            let _clock: [u8; 8] = body.bytes()?;
            succeeded(&mut body)?;
            seen.ready = true;
        }
        SENDACK => {
            let _ids: [u8; 8 + 4 + 8] = body.bytes()?;
            succeeded(&mut body)?;
            seen.confirmed += 1;
        }
        RECV => {
            let _setting: [u8; 1] = body.bytes()?;
            for _ in ["proof", "sender", "channel"] {
                body.text()?;
            }
            let _kind_and_expiry: [u8; 1 + 4] = body.bytes()?;
            let number = body.text()?;
            let ids: [u8; 8 + 8] = body.bytes()?;
            // those that made the channel have other numbers
            seen.delivered.extend(super::due(number));
            let mut reply = Vec::new();
            packet(&mut reply, RECVACK << 4, &ids);
            seen.replies.push(reply);
        }
        DISCONNECT => bail!("WuKongIM: disconnected, reason {:?}", body.0.first()),
        _ => {}
    }
    Ok(())
}

fn succeeded(body: &mut Fields<'_>) -> anyhow::Result<()> {
    let [reason] = body.bytes()?;
    ensure!(reason == SUCCESS, "WuKongIM: refused, reason {reason}");
    Ok(())
}

/// Fields that are taken from the front.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes<const N: usize>(&mut self) -> anyhow::Result<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk().context("WuKongIM: a packet that is cut off")?;
        self.0 = rest;
        Ok(*bytes)
    }

    fn some(&mut self, length: usize) -> anyhow::Result<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length).context("WuKongIM: a packet that is cut off")?;
        self.0 = rest;
        Ok(bytes)
    }

    fn text(&mut self) -> anyhow::Result<&'a [u8]> {
        let length = u16::from_be_bytes(self.bytes()?);
        self.some(usize::from(length))
    }

    /// A packet's first byte and its body. The heartbeat's answer is a byte alone, but this client sends no heartbeats.
    fn packet(&mut self) -> anyhow::Result<(u8, Self)> {
        let [first] = self.bytes()?;
        let (mut length, mut shift) = (0, 0);
        loop {
            let [digit] = self.bytes()?;
            length |= usize::from(digit & 0x7f) << shift;
            ensure!(length <= PACKET_MAX && shift < 28, "WuKongIM: a packet of more than {PACKET_MAX} bytes");
            if digit & 0x80 == 0 {
                return Ok((first, Fields(self.some(length)?)));
            }
            shift += 7;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(payload: &[u8]) -> anyhow::Result<Seen> {
        let mut seen = Seen::default();
        Wukongim.session(3).take(payload, &mut seen)?;
        Ok(seen)
    }

    fn connack(reason: u8) -> Vec<u8> {
        let mut body = vec![VERSION];
        body.extend([0; 8]);
        body.push(reason);
        ["server's key", "salt"].iter().for_each(|part| text(&mut body, part));
        body.extend([0; 8]);
        let mut out = Vec::new();
        packet(&mut out, CONNACK << 4 | VERSIONED, &body);
        out
    }

    fn sendack(reason: u8) -> Vec<u8> {
        let mut out = Vec::new();
        packet(&mut out, SENDACK << 4, &[[0; 20].as_slice(), &[reason], &[0, 1, b'x']].concat());
        out
    }

    fn recv(number: &str, ids: [u8; 16]) -> Vec<u8> {
        let (mut body, mut out) = (vec![0], Vec::new());
        ["proof", "u2", "u2"].iter().for_each(|part| text(&mut body, part));
        body.extend([PERSON, 0, 0, 0, 0]);
        text(&mut body, number);
        body.extend(ids);
        body.extend([0; 4]);
        body.extend([b'e'; 300]); // encrypted
        packet(&mut out, RECV << 4 | UNREAD, &body);
        out
    }

    #[test]
    fn lengths_are_written_in_groups_of_seven_bits() {
        for (length, wanted) in [(0, vec![0]), (127, vec![127]), (128, vec![0x80, 1]), (20_000, vec![0xa0, 0x9c, 1])] {
            let (body, mut out) = (vec![b'x'; length], Vec::new());
            packet(&mut out, SEND << 4, &body);
            assert_eq!(out, [vec![SEND << 4], wanted, body.clone()].concat());
            let (first, read) = Fields(&out).packet().unwrap();
            assert_eq!((first, read.0), (SEND << 4, body.as_slice()));
        }
    }

    #[test]
    fn a_message_is_plain_and_known_by_its_number() {
        let mut out = Vec::new();
        Wukongim.send(2, 0x1_0000_0007, "hi", &mut out);
        let wanted = b"\x32\x25\x10\0\0\0\x07\0\x11#0000000100000007\0\x02u2\x01\0\0\0\0\0\0hi";
        assert_eq!(out, wanted);
    }

    #[test]
    fn a_client_says_who_it_is_and_is_in_when_that_is_acknowledged() {
        let hello = Wukongim.session(3).hello().unwrap();
        assert!(hello.starts_with(b"\x10\x47\x06\x01\0\x07bench-3\0\x02u3\0\0") && hello.ends_with(KEY.as_bytes()));
        assert!(take(&connack(SUCCESS)).unwrap().ready);
        assert!(take(&connack(2)).is_err(), "no right to");
        let mut old = connack(SUCCESS);
        old[2] = 5;
        assert!(take(&old).is_err(), "an older version has other fields");
    }

    #[test]
    fn deliveries_are_acknowledged_and_several_packets_may_be_in_a_frame() {
        let ids = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
        let number = |due| super::super::body(due, STAMP);
        let seen = take(&[recv(&number(7), ids), sendack(SUCCESS), recv("another's", ids)].concat()).unwrap();
        assert_eq!((seen.delivered, seen.confirmed), (vec![7], 1));
        let wanted = [[RECVACK << 4, 16].as_slice(), &ids].concat();
        assert_eq!(seen.replies, [wanted.clone(), wanted]);
    }

    #[test]
    fn what_cannot_be_is_an_error() {
        let whole = recv("#0000000000000007", [0; 16]);
        for bytes in [&sendack(15), &whole[..40], &[RECV << 4, 0xff, 0xff, 0xff, 0x7f], &[DISCONNECT << 4, 3, 12, 0, 0]] {
            assert!(take(bytes).is_err(), "{bytes:?}");
        }
    }
}
