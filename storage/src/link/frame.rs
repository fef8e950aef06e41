//! Frames: a length of 4 bytes (big-endian), then a Protobuf message. Cutting a stream into frames is pure; nothing is ever allocated because a
//! peer claims a length.
//!
//! Fields and kinds are added with new tags, and a kind that is not known is passed over; [`VERSION`] is raised only when a meaning changes.

use bytes::{Buf as _, Bytes, BytesMut};
use prost::Message as _;
use protocol::record::{Link, Source};
use router::consume::Rewind;
use router::expand::ShardId;
use router::registry::NodeId;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// What both sides must speak.
pub(super) const VERSION: u32 = 1;
/// Longest frame, bytes.
pub(super) const FRAME_MAX: usize = 1 << 20;
/// Longest frame before the peer has proved itself, bytes.
pub(super) const HANDSHAKE_FRAME_MAX: usize = 512;
/// Bytes asked of the socket at once.
const READ: usize = 16 * 1024;
const LENGTH: usize = 4;

/// A node and its boot.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct WireNode {
    #[prost(uint32, tag = "1")]
    node: u32,
    #[prost(fixed64, tag = "2")]
    boot: u64,
}

impl From<NodeId> for WireNode {
    fn from(id: NodeId) -> Self {
        Self { node: id.node.into(), boot: id.boot }
    }
}

impl WireNode {
    pub(super) fn id(self) -> Option<NodeId> {
        Some(NodeId { node: u16::try_from(self.node).ok()?, boot: self.boot })
    }
}

/// Who dials whom.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Hello {
    #[prost(uint32, tag = "1")]
    pub(super) version: u32,
    #[prost(string, tag = "2")]
    pub(super) cluster: String,
    #[prost(message, optional, tag = "3")]
    pub(super) from: Option<WireNode>,
    #[prost(message, optional, tag = "4")]
    pub(super) to: Option<WireNode>,
    #[prost(fixed64, tag = "5")]
    pub(super) link_epoch: u64,
    #[prost(bytes = "vec", tag = "6")]
    pub(super) nonce: Vec<u8>,
}

/// Bytes of the handshake: a nonce or a proof.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Token {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) bytes: Vec<u8>,
}

/// Why the link is closed.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Refuse {
    #[prost(string, tag = "1")]
    pub(super) why: String,
}

/// Events in columns: row i says that event `seqs[i]` of the mailbox (`owners[i]`, `epochs[i]`) is body number `of[i]`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Pushes {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub(super) bodies: Vec<Bytes>,
    #[prost(uint64, repeated, tag = "2")]
    pub(super) owners: Vec<u64>,
    #[prost(uint64, repeated, tag = "3")]
    pub(super) epochs: Vec<u64>,
    #[prost(uint64, repeated, tag = "4")]
    pub(super) seqs: Vec<u64>,
    #[prost(uint32, repeated, tag = "5")]
    pub(super) of: Vec<u32>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WireRewind {
    #[prost(uint32, tag = "1")]
    partition: u32,
    #[prost(uint32, tag = "2")]
    epoch: u32,
    #[prost(uint32, tag = "3")]
    shard: u32,
    #[prost(uint64, tag = "4")]
    next_offset: u64,
    #[prost(fixed64, tag = "5")]
    digest: u64,
    #[prost(uint64, tag = "6")]
    hole: u64,
}

impl From<Rewind> for WireRewind {
    fn from(rewind: Rewind) -> Self {
        Self {
            partition: rewind.source.partition.into(),
            epoch: rewind.source.epoch.into(),
            shard: rewind.shard.0.into(),
            next_offset: rewind.high_water.next_offset,
            digest: rewind.high_water.digest,
            hole: rewind.hole,
        }
    }
}

impl WireRewind {
    pub(super) fn rewind(&self) -> Option<Rewind> {
        let short = |number| u16::try_from(number).ok();
        Some(Rewind {
            source: Source { partition: short(self.partition)?, epoch: short(self.epoch)? },
            shard: ShardId(short(self.shard)?),
            high_water: Link { next_offset: self.next_offset, digest: self.digest },
            hole: self.hole,
        })
    }
}

/// Requests to rewind.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Rewinds {
    #[prost(message, repeated, tag = "1")]
    pub(super) rewinds: Vec<WireRewind>,
}

/// A device has attached at the sender: what is left of it here is to be closed.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct WireSuperseded {
    #[prost(uint64, tag = "1")]
    pub(super) user: u64,
    #[prost(string, tag = "2")]
    pub(super) device: String,
    #[prost(uint64, tag = "3")]
    pub(super) counter: u64,
}

/// Sessions to close.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Supersedes {
    #[prost(message, repeated, tag = "1")]
    pub(super) superseded: Vec<WireSuperseded>,
}

/// Nothing but a sign of life and the counter.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Beat {}

/// What a frame is.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Kind {
    #[prost(message, tag = "2")]
    Hello(Hello),
    #[prost(message, tag = "3")]
    Challenge(Token),
    #[prost(message, tag = "4")]
    Proof(Token),
    #[prost(message, tag = "5")]
    Welcome(Token),
    #[prost(message, tag = "6")]
    Refuse(Refuse),
    #[prost(message, tag = "7")]
    Pushes(Pushes),
    #[prost(message, tag = "8")]
    Rewinds(Rewinds),
    #[prost(message, tag = "9")]
    Beat(Beat),
    #[prost(message, tag = "10")]
    Supersedes(Supersedes),
}

/// One frame. `counter` is the number of frames of pushes that were meant to be sent so far on this link, this one included.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Frame {
    #[prost(fixed64, tag = "1")]
    pub(super) counter: u64,
    #[prost(oneof = "Kind", tags = "2, 3, 4, 5, 6, 7, 8, 9, 10")]
    pub(super) kind: Option<Kind>,
}

/// Tag and wire type of [`Frame::counter`].
const COUNTER_KEY: u8 = 1 << 3 | 1;
const COUNTER: usize = 9;

/// Everything of a frame but its length and its counter, which is known only when it is queued.
pub(super) fn encode(kind: Kind) -> Bytes {
    Frame { counter: 0, kind: Some(kind) }.encode_to_vec().into()
}

/// Appends a whole frame. In Protobuf the fields of a message may be written one after the other, so the counter goes before the rest.
pub(super) fn write(buffer: &mut Vec<u8>, counter: u64, rest: &[u8]) {
    let length = COUNTER + rest.len();
    debug_assert!(length <= FRAME_MAX, "the encoder cuts before");
    buffer.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    buffer.push(COUNTER_KEY);
    buffer.extend_from_slice(&counter.to_le_bytes());
    buffer.extend_from_slice(rest);
}

/// A whole frame of the handshake.
pub(super) fn whole(kind: Kind) -> Vec<u8> {
    let mut buffer = Vec::new();
    write(&mut buffer, 0, &encode(kind));
    buffer
}

/// Bytes that are no frame. Nothing behind them can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Garbage;

/// A stream, cut into frames.
#[derive(Debug)]
pub(super) struct Cutter {
    buffer: BytesMut,
    max: usize,
}

impl Cutter {
    /// For the handshake: short frames only.
    pub(super) fn new() -> Self {
        Self { buffer: BytesMut::new(), max: HANDSHAKE_FRAME_MAX }
    }

    /// The peer has proved itself: frames up to [`FRAME_MAX`].
    pub(super) const fn trust(&mut self) {
        self.max = FRAME_MAX;
    }

    /// The next whole frame.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, Garbage> {
        let Some(length) = self.buffer.first_chunk::<LENGTH>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| Garbage)?;
        if length == 0 || length > self.max {
            return Err(Garbage);
        }
        if self.buffer.len() < LENGTH + length {
            return Ok(None);
        }
        self.buffer.advance(LENGTH);
        let frame = self.buffer.split_to(length).freeze();
        Frame::decode(frame).map(Some).map_err(|_| Garbage)
    }

    /// Bytes that arrived.
    #[cfg(any(test, feature = "plant", feature = "fuzz"))]
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    #[cfg(any(test, feature = "fuzz"))]
    pub(super) fn held(&self) -> usize {
        self.buffer.capacity()
    }

    /// Reads what is there, at most [`READ`] bytes beyond what is asked for; 0: the peer has closed. Can be dropped at any point.
    pub(super) async fn fill(&mut self, socket: &mut (impl AsyncRead + Unpin)) -> std::io::Result<usize> {
        let room = if self.max == FRAME_MAX { READ } else { HANDSHAKE_FRAME_MAX };
        self.buffer.reserve(room);
        socket.read_buf(&mut self.buffer).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn beat(counter: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut bytes, counter, &encode(Kind::Beat(Beat {})));
        bytes
    }

    #[test]
    fn a_claimed_length_allocates_nothing() {
        let mut cutter = Cutter::new();
        cutter.trust();
        cutter.feed(&u32::try_from(FRAME_MAX).unwrap().to_be_bytes());
        assert_eq!(cutter.next(), Ok(None));
        assert!(cutter.held() < 1024);
        let mut cutter = Cutter::new();
        cutter.feed(&u32::MAX.to_be_bytes());
        assert_eq!(cutter.next(), Err(Garbage));
    }

    #[test]
    fn long_frames_wait_for_the_proof() {
        let token = Token { bytes: vec![7; HANDSHAKE_FRAME_MAX] };
        let long = whole(Kind::Proof(token.clone()));
        let mut cutter = Cutter::new();
        cutter.feed(&long);
        assert_eq!(cutter.next(), Err(Garbage));
        let mut cutter = Cutter::new();
        cutter.trust();
        cutter.feed(&long);
        assert_eq!(cutter.next(), Ok(Some(Frame { counter: 0, kind: Some(Kind::Proof(token)) })));
    }

    #[test]
    fn a_kind_of_a_newer_build_is_passed_over() {
        let mut bytes = Vec::new();
        write(&mut bytes, 3, &[0xfa, 0x01, 0x01, 0x00]); // tag 31, one byte long
        let mut cutter = Cutter::new();
        cutter.feed(&bytes);
        assert_eq!(cutter.next(), Ok(Some(Frame { counter: 3, kind: None })));
    }

    #[test]
    fn rewinds_come_as_they_were() {
        let rewind = Rewind {
            source: Source { partition: 3, epoch: 2 },
            shard: ShardId(9),
            high_water: Link { next_offset: 8, digest: u64::MAX },
            hole: 77,
        };
        assert_eq!(WireRewind::from(rewind).rewind(), Some(rewind));
        assert_eq!(WireRewind { shard: 1 << 16, ..WireRewind::from(rewind) }.rewind(), None);
    }

    proptest! {
        #[test]
        fn frames_come_however_the_stream_is_cut(counters in proptest::collection::vec(any::<u64>(), 1..20), cut in 1..40_usize) {
            let bytes: Vec<u8> = counters.iter().flat_map(|counter| beat(*counter)).collect();
            let (mut cutter, mut heard) = (Cutter::new(), Vec::new());
            for part in bytes.chunks(cut) {
                cutter.feed(part);
                while let Some(frame) = cutter.next().unwrap() {
                    heard.push(frame.counter);
                }
            }
            prop_assert_eq!(heard, counters);
        }

        #[test]
        fn any_bytes_are_frames_or_garbage_never_more_memory(bytes in proptest::collection::vec(any::<u8>(), 0..2000), trusted: bool) {
            let mut cutter = Cutter::new();
            if trusted {
                cutter.trust();
            }
            cutter.feed(&bytes);
            while let Ok(Some(frame)) = cutter.next() {
                if let Some(Kind::Pushes(pushes)) = frame.kind {
                    let _ = super::super::batch::open(&pushes);
                }
            }
            prop_assert!(cutter.held() <= 4096);
        }

        #[test]
        fn any_body_behind_a_true_length_is_a_frame_or_garbage(tag in 2..10_u8, bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let mut rest = vec![tag << 3 | 2, u8::try_from(bytes.len()).unwrap()];
            rest.extend(&bytes);
            let mut stream = Vec::new();
            write(&mut stream, 1, &rest);
            let mut cutter = Cutter::new();
            cutter.trust();
            cutter.feed(&stream);
            if let Ok(Some(Frame { kind: Some(Kind::Pushes(pushes)), .. })) = cutter.next() {
                let _ = super::super::batch::open(&pushes);
            }
        }
    }
}
