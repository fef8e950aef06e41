//! Fuzz targets of links (builds with the feature `fuzz` only): here because everything they touch is private.

use protocol::DeviceName;
use router::registry::NodeId;

use super::batch::{open, seal};
use super::frame::{Cutter, Frame, Kind, Token, whole, write};
use super::handshake::{Credentials, Handshake};

const HERE: NodeId = NodeId { node: 2, boot: 22 };
const THERE: NodeId = NodeId { node: 1, boot: 11 };
/// More frames than an input has room for.
const FRAMES_MAX: usize = 1 << 16;

/// All frames of a stream that comes in pieces of this many bytes, and whether it ended in garbage.
fn cut(stream: &[u8], piece: usize, trusted: bool) -> (Vec<Frame>, bool) {
    let mut cutter = Cutter::new();
    if trusted {
        cutter.trust();
    }
    let mut frames = Vec::new();
    for part in stream.chunks(piece) {
        cutter.feed(part);
        assert!(cutter.held() <= 2 * stream.len() + 64, "nothing is allocated because a peer claims a length");
        loop {
            match cutter.next() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(_) => return (frames, true),
            }
        }
        assert!(frames.len() < FRAMES_MAX);
    }
    (frames, false)
}

/// What a gateway or a router makes of a frame of a peer that has proved itself.
fn take(frame: Frame) {
    match frame.kind {
        Some(Kind::Pushes(pushes)) => {
            let Ok((pushes, _unread)) = open(&pushes) else { return };
            let (frames, too_long) = seal(&pushes);
            assert_eq!(frames.iter().map(|frame| frame.pushes).sum::<usize>() + too_long, pushes.len());
        }
        Some(Kind::Rewinds(rewinds)) => {
            for rewind in rewinds.rewinds.iter().filter_map(super::frame::WireRewind::rewind) {
                assert_eq!(super::frame::WireRewind::from(rewind).rewind(), Some(rewind));
            }
        }
        Some(Kind::Supersedes(frame)) => {
            for one in &frame.superseded {
                let _ = one.device.parse::<DeviceName>();
            }
        }
        _ => {}
    }
}

/// A stream of bytes from a peer, before and after its proof: the same frames however it is cut. The first byte says how it is cut.
pub fn frames(data: &[u8]) {
    let Some((first, stream)) = data.split_first() else { return };
    for trusted in [false, true] {
        let (whole, garbage) = cut(stream, stream.len().max(1), trusted);
        assert_eq!(cut(stream, usize::from(*first) + 1, trusted), (whole.clone(), garbage), "the same, however it is cut");
        for frame in whole {
            take(frame);
        }
    }
}

/// Frames of a stranger who does not know the secret, to the listener and to the dialer: no proof of his is ever taken.
pub fn handshake(data: &[u8]) {
    let Ok(credentials) = Credentials::new(HERE, "cluster", Some(&[9; 32])) else { return };
    let (frames, _) = cut(data, data.len().max(1), false);
    let mut listening = None;
    for frame in frames {
        match frame.kind {
            Some(Kind::Hello(hello)) => listening = Handshake::heard(&credentials, hello, [5; 32]).ok(),
            Some(Kind::Proof(proof)) => {
                let proved = listening.as_ref().map(|handshake| handshake.proved(&proof).is_ok());
                assert_ne!(proved, Some(true), "nobody proves a secret he does not know");
            }
            Some(Kind::Challenge(challenge)) => dial(&credentials, challenge, &Token { bytes: data.to_vec() }),
            Some(Kind::Welcome(welcome)) => dial(&credentials, Token { bytes: vec![6; 32] }, &welcome),
            _ => {}
        }
    }
}

fn dial(credentials: &Credentials, challenge: Token, welcome: &Token) {
    let hello = credentials.hello(THERE, 3, [4; 32]);
    if let Ok(handshake) = Handshake::challenged(credentials, THERE, hello, challenge) {
        assert_eq!(handshake.proof().bytes.len(), 32);
        assert!(handshake.welcomed(welcome).is_err(), "nobody proves a secret he does not know");
    }
}

/// Inputs to begin with: good frames of each kind.
pub fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    use super::frame::{Beat, Pushes, Refuse, Rewinds, Supersedes, WireSuperseded, encode};
    let hello =
        |to| Kind::Hello(Credentials::new(THERE, "cluster", None).map_or_else(|_| unreachable!(), |me| me.hello(to, 3, [4; 32])));
    let rewind = router::consume::Rewind {
        source: protocol::record::Source { partition: 3, epoch: 1 },
        shard: router::expand::ShardId(9),
        high_water: protocol::record::Link { next_offset: 8, digest: 77 },
        hole: 12,
    };
    let pushes = Pushes {
        owners: vec![5, 6],
        epochs: vec![1, 1],
        seqs: vec![7, 8],
        of: vec![0, 0],
        bodies: vec![bytes::Bytes::from_static(b"\x0a\x00")],
    };
    let device = WireSuperseded { user: 5, device: "phone".into(), counter: 9 };
    let framed = |kind| {
        let mut stream = vec![0];
        write(&mut stream, 1, &encode(kind));
        stream
    };
    let stranger = [whole(hello(HERE)), whole(Kind::Proof(Token { bytes: vec![1; 32] }))].concat();
    let listener =
        [whole(Kind::Challenge(Token { bytes: vec![6; 32] })), whole(Kind::Welcome(Token { bytes: vec![1; 32] }))].concat();
    vec![
        ("link_frames", "pushes", framed(Kind::Pushes(pushes))),
        ("link_frames", "rewinds", framed(Kind::Rewinds(Rewinds { rewinds: vec![rewind.into()] }))),
        ("link_frames", "supersedes", framed(Kind::Supersedes(Supersedes { superseded: vec![device] }))),
        ("link_frames", "beats", [vec![2], whole(Kind::Beat(Beat {})), whole(Kind::Beat(Beat {}))].concat()),
        ("link_frames", "a claimed length", vec![0, 0xff, 0xff, 0xff, 0xff]),
        ("link_frames", "a kind of a newer build", vec![0, 0, 0, 0, 4, 0xfa, 0x01, 0x01, 0x00]),
        ("link_handshake", "a stranger dials", stranger),
        ("link_handshake", "a stranger answers", listener),
        ("link_handshake", "for another node", whole(hello(THERE))),
        ("link_handshake", "refused", whole(Kind::Refuse(Refuse { why: "secret".into() }))),
    ]
}
