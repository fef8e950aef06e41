use super::*;
use proptest::prelude::*;

const MAX: usize = 4096;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Got {
    Message(bool, Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
}

/// A frame as a client writes it.
fn frame(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        short @ 0..126 => bytes.push(0x80 | short as u8),
        middle @ 126..65536 => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(middle as u16).to_be_bytes());
        }
        long => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&mask);
    bytes.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
    bytes
}

/// Everything read from bytes that arrive in pieces of these sizes, and how it ended.
fn read(bytes: &[u8], sizes: &[usize]) -> (Vec<Got>, Option<Violation>) {
    let (mut reader, mut got, mut at, mut turn) = (FrameReader::new(MAX), Vec::new(), 0, 0);
    while at < bytes.len() {
        let size = sizes.get(turn % sizes.len().max(1)).copied().unwrap_or(bytes.len()).max(1);
        turn += 1;
        let end = (at + size).min(bytes.len());
        let mut piece = bytes[at..end].to_vec();
        at = end;
        let mut input = piece.as_mut_slice();
        loop {
            match reader.next(&mut input) {
                Ok(Some(Incoming::Message { text, payload })) => got.push(Got::Message(text, payload.to_vec())),
                Ok(Some(Incoming::Ping(payload))) => got.push(Got::Ping(payload.to_vec())),
                Ok(Some(Incoming::Pong)) => got.push(Got::Pong),
                Ok(Some(Incoming::Close(code))) => got.push(Got::Close(code)),
                Ok(None) => break,
                Err(violation) => return (got, Some(violation)),
            }
        }
    }
    (got, None)
}

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

#[test]
fn a_message_and_a_ping_inside_a_fragmented_one() {
    let bytes = [
        frame(0x81, b"hello", MASK),
        frame(0x01, b"frag", MASK),
        frame(0x89, b"p", MASK),
        frame(0x80, b"ment", MASK),
        frame(0x82, &[255], MASK),
    ];
    let want = vec![
        Got::Message(true, b"hello".to_vec()),
        Got::Ping(b"p".to_vec()),
        Got::Message(true, b"fragment".to_vec()),
        Got::Message(false, vec![255]),
    ];
    assert_eq!(read(&bytes.concat(), &[]), (want.clone(), None));
    assert_eq!(read(&bytes.concat(), &[1]), (want, None));
}

#[test]
fn what_breaks_the_protocol_and_how_it_is_called() {
    let unmasked = vec![0x81, 0x01, b'x'];
    let huge = [vec![0x82, 0xff], (u64::MAX >> 1).to_be_bytes().to_vec(), vec![0; 4]].concat();
    let rows: Vec<(&str, Vec<u8>, Violation)> = vec![
        ("unmasked", unmasked, PROTOCOL),
        ("rsv1", frame(0xc1, b"x", MASK), PROTOCOL),
        ("reserved opcode 3", frame(0x83, b"", MASK), PROTOCOL),
        ("reserved opcode 11", frame(0x8b, b"", MASK), PROTOCOL),
        ("fragmented ping", frame(0x09, b"x", MASK), PROTOCOL),
        ("long ping", frame(0x89, &[0; 126], MASK), PROTOCOL),
        ("continuation of nothing", frame(0x80, b"x", MASK), PROTOCOL),
        ("second message inside the first", [frame(0x01, b"a", MASK), frame(0x81, b"b", MASK)].concat(), PROTOCOL),
        ("huge length", huge, TOO_BIG),
        ("over the limit", frame(0x82, &[0; MAX + 1], MASK), TOO_BIG),
        ("over the limit in fragments", [frame(0x02, &[0; MAX], MASK), frame(0x80, &[0], MASK)].concat(), TOO_BIG),
        ("too many fragments", [frame(0x01, b"", MASK), frame(0x00, b"", MASK).repeat(200)].concat(), TOO_BIG),
        ("not UTF-8", frame(0x81, &[0xff], MASK), NOT_UTF8),
        ("surrogate", frame(0x81, &[0xed, 0xa0, 0x80], MASK), NOT_UTF8),
        ("overlong", frame(0x81, &[0xc0, 0xaf], MASK), NOT_UTF8),
        ("cut code point", frame(0x81, "é".as_bytes().split_at(1).0, MASK), NOT_UTF8),
        (
            "cut code point at the end of fragments",
            [frame(0x01, "é".as_bytes().split_at(1).0, MASK), frame(0x80, b"", MASK)].concat(),
            NOT_UTF8,
        ),
        ("close with one byte", frame(0x88, &[3], MASK), PROTOCOL),
        ("close with code 1005", frame(0x88, &1005_u16.to_be_bytes(), MASK), PROTOCOL),
        ("close with code 999", frame(0x88, &999_u16.to_be_bytes(), MASK), PROTOCOL),
        ("close with a reason that is not UTF-8", frame(0x88, &[3, 232, 0xff], MASK), NOT_UTF8),
    ];
    for (name, bytes, violation) in rows {
        assert_eq!(read(&bytes, &[]).1, Some(violation), "{name}");
        assert_eq!(read(&bytes, &[1]).1, Some(violation), "{name}, byte by byte");
    }
}

#[test]
fn bad_text_fails_before_its_frame_is_complete() {
    let bytes = frame(0x01, &[0xce, 0xba, 0xff, 0x80, 0x80, 0x80], MASK);
    assert_eq!(read(&bytes[..9], &[1]).1, Some(NOT_UTF8));
}

#[test]
fn a_split_code_point_is_fine() {
    let (head, tail) = "κόσμε".as_bytes().split_at(3);
    let bytes = [frame(0x01, head, MASK), frame(0x80, tail, [0; 4])].concat();
    assert_eq!(read(&bytes, &[2]).0, vec![Got::Message(true, "κόσμε".into())]);
}

#[test]
fn nothing_is_held_between_messages() {
    let mut reader = FrameReader::new(MAX);
    let mut bytes = [frame(0x01, b"ab", MASK), frame(0x80, b"c", MASK)].concat();
    let mut input = bytes.as_mut_slice();
    while reader.next(&mut input).unwrap().is_some() {}
    assert!(reader.done.is_none() && reader.assembly.is_none() && reader.control.capacity() == 0);
}

fn message() -> impl Strategy<Value = Vec<u8>> {
    let payload = proptest::collection::vec(any::<u8>(), 0..300);
    (any::<bool>(), ".{0,60}", payload, proptest::collection::vec(0..40_usize, 0..5), any::<[u8; 4]>()).prop_map(
        |(text, words, binary, cuts, mask)| {
            let payload = if text { words.into_bytes() } else { binary };
            let (mut out, mut rest, mut first) = (Vec::new(), payload.as_slice(), true);
            for cut in cuts {
                let (piece, tail) = rest.split_at(cut.min(rest.len()));
                out.extend(frame(if first { 2 - u8::from(text) } else { 0 }, piece, mask));
                out.extend(frame(0x89, b"?", mask));
                (rest, first) = (tail, false);
            }
            out.extend(frame(0x80 | if first { 2 - u8::from(text) } else { 0 }, rest, mask));
            out
        },
    )
}

proptest! {
    #[test]
    fn pieces_make_no_difference(messages in proptest::collection::vec(message(), 1..5), sizes in proptest::collection::vec(1..50_usize, 1..10)) {
        let bytes = messages.concat();
        let whole = read(&bytes, &[]);
        prop_assert_eq!(whole.1, None);
        prop_assert_eq!(read(&bytes, &sizes), whole);
    }

    #[test]
    fn any_bytes_in_any_pieces_give_the_same_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), sizes in proptest::collection::vec(1..50_usize, 1..10)) {
        let whole = read(&bytes, &[]);
        let pieces = read(&bytes, &sizes);
        prop_assert_eq!(&whole.0, &pieces.0);
        prop_assert_eq!(whole.1, pieces.1);
    }
}
