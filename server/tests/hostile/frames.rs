//! Rows of WebSocket frames (RFC 6455 section 5), after a good attach.

use crate::raw::client_frame;
use crate::{Deed, Row, row};

fn fatal(of: u8, what: &str, send: Vec<u8>, code: u16) -> Row {
    row(of, what, Deed::Fatal { send, code })
}

fn fine(of: u8, what: &str, send: Vec<u8>) -> Row {
    row(of, what, Deed::Answered { send, words: &["pong"] })
}

fn text(text: &str) -> Vec<u8> {
    client_frame(0x81, text.as_bytes())
}

/// A whole frame, its length written in 8 bytes.
fn of_length(length: u64) -> Vec<u8> {
    [vec![0x81, 0xff], length.to_be_bytes().to_vec(), vec![0; 4]].concat()
}

pub(crate) fn rows() -> Vec<Row> {
    let opcodes =
        (3..=7).chain(11..=15).map(|opcode| fatal(27, &format!("opcode {opcode}"), client_frame(0x80 | opcode, b""), 1002));
    heads().into_iter().chain(opcodes).chain(messages()).chain(utf8()).chain(floods()).collect()
}

fn heads() -> Vec<Row> {
    vec![
        fatal(25, "unmasked", vec![0x81, 2, b'{', b'}'], 1002),
        fatal(25, "unmasked, with its head alone", vec![0x81, 100], 1002),
        fatal(26, "second reserved bit", client_frame(0xa1, b"{}"), 1002),
        fatal(26, "third reserved bit", client_frame(0x91, b"{}"), 1002),
        fatal(26, "a control frame's", client_frame(0xc9, b""), 1002),
        fatal(28, "long ping", client_frame(0x89, &[0; 126]), 1002),
        fatal(28, "long close", client_frame(0x88, &[3, 232].repeat(63)), 1002),
        fatal(28, "fragmented ping", client_frame(0x09, b""), 1002),
        fatal(28, "fragmented close", client_frame(0x08, b""), 1002),
        fatal(30, "2^63-1", of_length(u64::MAX >> 1), 1009),
        fatal(30, "2^64-1", of_length(u64::MAX), 1002),
        fatal(
            40,
            "compressed, not agreed",
            client_frame(0xc1, &[0xaa, 0x56, 0x2a, 0xa9, 0x2c, 0x48, 0x55, 0xb2, 0x52, 0x50]),
            1002,
        ),
        fatal(40, "a bomb of zeros", client_frame(0xc1, &[0; 1000]), 1002),
        fatal(98, "one byte", client_frame(0x88, &[3]), 1002),
        fatal(98, "a code nobody may send", client_frame(0x88, &1005_u16.to_be_bytes()), 1002),
        fatal(98, "a code that is none", client_frame(0x88, &999_u16.to_be_bytes()), 1002),
        fatal(98, "a reason that is not UTF-8", client_frame(0x88, &[3, 232, 0xff]), 1007),
    ]
}

fn messages() -> Vec<Row> {
    let ping = r#"{"type":"ping"}"#;
    let whole = format!("{ping}{}", " ".repeat(65_536 - ping.len()));
    let halves =
        |first: usize, second: usize| [client_frame(0x01, &vec![b' '; first]), client_frame(0x80, &vec![b' '; second])].concat();
    let split = [client_frame(0x01, br#"{"type":"#), client_frame(0x00, b""), client_frame(0x80, br#""ping"}"#)].concat();
    vec![
        fine(31, "at the limit", client_frame(0x81, whole.as_bytes())),
        fatal(31, "one byte over", client_frame(0x81, &[b' '; 65_537]), 1009),
        fatal(31, "its head alone", of_length(65_537), 1009),
        fatal(31, "in fragments", halves(40_000, 40_000), 1009),
        fatal(32, "200 empty fragments", [client_frame(0x01, b""), client_frame(0x00, b"").repeat(200)].concat(), 1009),
        fatal(32, "continuation of nothing", client_frame(0x80, b"{}"), 1002),
        fatal(32, "a message inside another", [client_frame(0x01, b"{"), client_frame(0x81, b"{}")].concat(), 1002),
        fine(32, "fragments are a message", split),
        fatal(36, "binary", client_frame(0x82, b"{}"), 1003),
        fatal(36, "binary in fragments", [client_frame(0x02, b"{"), client_frame(0x80, b"}")].concat(), 1003),
    ]
}

fn utf8() -> Vec<Row> {
    let euro = [client_frame(0x01, b"{\"type\":\"ping\",\"x\":\"\xe2\x82"), client_frame(0x80, b"\xac\"}")].concat();
    vec![
        fatal(35, "not UTF-8", client_frame(0x81, &[0xc3, 0x28]), 1007),
        fatal(35, "surrogate", client_frame(0x81, &[0xed, 0xa0, 0x80]), 1007),
        fatal(35, "overlong", client_frame(0x81, &[0xc0, 0xaf]), 1007),
        fatal(35, "beyond the last code point", client_frame(0x81, &[0xf4, 0x90, 0x80, 0x80]), 1007),
        fatal(35, "cut at the end", client_frame(0x81, &[b'{', 0xe2, 0x82]), 1007),
        fatal(35, "in the first of many fragments", client_frame(0x01, &[b'{', 0xff]), 1007),
        fatal(
            35,
            "in the middle of a frame that has not ended",
            client_frame(0x81, &[&[0xff][..], &[b' '; 999]].concat())[..600].to_vec(),
            1007,
        ),
        fatal(
            35,
            "code point cut by fragments, then wrong",
            [client_frame(0x01, &[0xe2, 0x82]), client_frame(0x80, b"(")].concat(),
            1007,
        ),
        fine(35, "code point cut by fragments is one", euro),
    ]
}

fn floods() -> Vec<Row> {
    let pings = r#"{"type":"ping"}"#;
    vec![
        fatal(37, "ping flood", client_frame(0x89, b"x").repeat(2000), 4429),
        fine(37, "unsolicited pongs are nothing", [client_frame(0x8a, b"x").repeat(2000), text(pings)].concat()),
        fatal(96, "errors", text(r#"{"type":"fly"}"#).repeat(1000), 4429),
        fatal(96, "application pings", text(pings).repeat(1000), 4429),
        fatal(96, "pages", text(r#"{"type":"conversations"}"#).repeat(1000), 4429),
        fatal(96, "stale acknowledgements", text(r#"{"type":"received","seq":0}"#).repeat(1000), 4429),
        fatal(97, "acknowledgement of what was never sent", text(r#"{"type":"received","seq":999999}"#), 4400),
        fatal(97, "of the last there can be", text(r#"{"type":"received","seq":18446744073709551615}"#), 4400),
        fatal(58, "second hello", text(r#"{"type":"hello"}"#), 4400),
        fatal(45, "three times", ["", "null", "[]"].map(text).concat(), 4400),
    ]
}
