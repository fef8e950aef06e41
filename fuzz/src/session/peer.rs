//! One client: says what the program wants, reads as any client would, and knows what a server may say to it.

use std::collections::{BTreeSet, HashMap};

use futures_util::FutureExt as _;
use gateway::frame_reader::{FrameReader, Incoming};
use protocol::codec::Encoding;
use protocol::frame::{ClientFrame, Hello};
use protocol::record::Identity;
use protocol::{CloseCode, MessageId};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::world::LIMITS;

/// The codes of `docs/protocol.md`.
const CLOSES: [CloseCode; 15] = [
    CloseCode::Normal,
    CloseCode::Protocol,
    CloseCode::Unsupported,
    CloseCode::NotUtf8,
    CloseCode::Policy,
    CloseCode::TooBig,
    CloseCode::BadRequest,
    CloseCode::Unauthenticated,
    CloseCode::Forbidden,
    CloseCode::TooSlow,
    CloseCode::Superseded,
    CloseCode::EpochChanged,
    CloseCode::Version,
    CloseCode::Rate,
    CloseCode::Draining,
];
/// Longest answer that carries no message: 160 letters of a reason, as JSON, and what stands around them.
const ANSWER_BYTES_MAX: usize = 2048;
/// Longest event: a body of control characters as JSON, and what stands around it.
const EVENT_BYTES_MAX: usize = 6 * 512 + 1024;

/// A client.
pub struct Peer {
    stream: Option<DuplexStream>,
    pub reads: bool,
    /// Bytes the server has not taken yet.
    unsent: Vec<u8>,
    /// What the server was sent, read as it reads.
    mirror: FrameReader,
    broken: bool,
    input: Vec<u8>,
    sends: HashMap<MessageId, u32>,
    answers: HashMap<MessageId, u32>,
    /// Whole frames sent, seconds passed, times it was told to go: all that the server may answer.
    frames: usize,
    pub ticks: usize,
    pub moves: usize,
    heard: usize,
    /// Codes it closed with itself.
    own_closes: BTreeSet<u16>,
    hello: Option<Hello>,
    next_seq: Option<u64>,
    /// Watermarks it was told, by conversation and member.
    marks: HashMap<String, [u64; 2]>,
    welcomed: bool,
    closed: bool,
}

impl Peer {
    pub fn new(stream: DuplexStream) -> Self {
        Self {
            stream: Some(stream),
            reads: true,
            unsent: Vec::new(),
            mirror: FrameReader::new(LIMITS.frame_bytes),
            broken: false,
            input: Vec::new(),
            sends: HashMap::new(),
            answers: HashMap::new(),
            frames: 0,
            ticks: 0,
            moves: 0,
            heard: 0,
            own_closes: BTreeSet::new(),
            hello: None,
            next_seq: None,
            marks: HashMap::new(),
            welcomed: false,
            closed: false,
        }
    }

    pub fn say(&mut self, bytes: &[u8]) {
        self.unsent.extend_from_slice(bytes);
    }

    /// Ends the connection.
    pub fn go(&mut self) {
        self.stream = None;
    }

    /// Writes what the server takes, reads what there is.
    pub fn turn(&mut self, accepted: &BTreeSet<Identity>) {
        let Some(stream) = &mut self.stream else { return };
        if !self.unsent.is_empty()
            && let Some(Ok(taken)) = stream.write(&self.unsent).now_or_never()
        {
            let mut sent: Vec<u8> = self.unsent.drain(..taken).collect();
            self.note(&mut sent);
        }
        if !self.reads {
            return;
        }
        let mut buffer = [0; 8192];
        loop {
            let Some(stream) = &mut self.stream else { return };
            match stream.read(&mut buffer).now_or_never() {
                None => break,
                Some(Ok(got)) if got > 0 => self.input.extend_from_slice(&buffer[..got]),
                Some(_) => {
                    self.stream = None;
                    break;
                }
            }
        }
        self.hear(accepted);
    }

    /// What the server now knows of.
    fn note(&mut self, mut sent: &mut [u8]) {
        while !self.broken {
            match self.mirror.next(&mut sent) {
                Ok(None) => return,
                Ok(Some(incoming)) => {
                    self.frames += 1;
                    match incoming {
                        Incoming::Close(code) => drop(self.own_closes.insert(code.unwrap_or(1000))),
                        Incoming::Message { text: true, payload } => match Encoding::Json.decode(payload) {
                            Ok(ClientFrame::Send(send)) => *self.sends.entry(send.id).or_default() += 1,
                            Ok(ClientFrame::Hello(hello)) => self.hello = Some(hello),
                            Ok(_) => {}
                            // a send that cannot be read, but whose id can
                            Err(error) => {
                                if let Some(id) = error.id {
                                    *self.sends.entry(id).or_default() += 1;
                                }
                            }
                        },
                        _ => {}
                    }
                }
                Err(_) => self.broken = true,
            }
        }
    }

    /// Whole frames of the server, each judged.
    fn hear(&mut self, accepted: &BTreeSet<Identity>) {
        while let Some((first, payload)) = self.take_frame() {
            assert!(!self.closed, "nothing is said behind a close frame");
            match first {
                0x81 => self.text(&payload, accepted),
                0x88 => self.close(&payload),
                0x89 => {
                    assert!(payload.is_empty());
                    self.answer();
                }
                0x8a => {
                    assert!(payload.len() <= 125);
                    self.answer();
                }
                other => panic!("a server's frame begins with {other:#x}"),
            }
        }
    }

    fn take_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let [first, short, ..] = *self.input.as_slice() else { return None };
        let (length, at) = match short {
            126 => (usize::from(u16::from_be_bytes([*self.input.get(2)?, *self.input.get(3)?])), 4),
            127 => (usize::try_from(u64::from_be_bytes(self.input.get(2..10)?.try_into().ok()?)).ok()?, 10),
            short => (usize::from(short), 2),
        };
        assert!(short < 128, "a server does not mask");
        if self.input.len() < at + length {
            return None;
        }
        let frame: Vec<u8> = self.input.drain(..at + length).collect();
        Some((first, frame[at..].to_vec()))
    }

    /// One more thing that was said: each input has a bounded answer.
    fn answer(&mut self) {
        self.heard += 1;
        let owed = 3 * self.frames + 2 * self.ticks + self.moves + 4;
        assert!(self.heard <= owed, "{} answers to {} frames in {} seconds", self.heard, self.frames, self.ticks);
    }

    fn close(&mut self, payload: &[u8]) {
        let code = u16::from_be_bytes([payload[0], payload[1]]);
        let documented = CLOSES.iter().any(|known| known.number() == code);
        assert!(documented || self.own_closes.contains(&code), "closed with {code}");
        self.closed = true;
    }

    fn text(&mut self, payload: &[u8], accepted: &BTreeSet<Identity>) {
        let frame: Value = serde_json::from_slice(payload).expect("a server says JSON");
        let kind = frame["type"].as_str().expect("every frame has a type");
        match kind {
            "event" => {
                assert!(payload.len() <= EVENT_BYTES_MAX);
                return self.event(&frame);
            }
            "receipt" => return self.receipt(&frame),
            "typing" | "presence" => return assert!(self.welcomed && payload.len() <= ANSWER_BYTES_MAX),
            "page" | "conversations" => assert!(payload.len() <= LIMITS.page_events as usize * EVENT_BYTES_MAX),
            _ => assert!(payload.len() <= ANSWER_BYTES_MAX, "{} bytes of {kind}", payload.len()),
        }
        self.answer();
        let id = || frame["id"].as_str().and_then(|id| id.parse::<MessageId>().ok());
        match kind {
            "welcome" => {
                assert!(!std::mem::replace(&mut self.welcomed, true), "welcomed twice");
                self.begin();
            }
            "resync" => self.next_seq = None,
            "accepted" => {
                let id = id().expect("accepted has an id");
                assert!(accepted.iter().any(|identity| identity.id == id), "accepted, and nowhere durable");
                self.settled(id);
            }
            "refused" => self.settled(id().expect("refused has an id")),
            "live" | "page" | "conversations" | "move" | "reauth" | "pong" | "error" => {}
            other => panic!("no frame of the protocol: {other}"),
        }
        assert!(self.welcomed || kind == "error", "{kind} before welcome");
    }

    /// The session begins behind the cursor of the last hello.
    fn begin(&mut self) {
        self.next_seq = self.hello.as_ref().and_then(|hello| hello.cursor?.checked_add(1));
    }

    fn event(&mut self, frame: &Value) {
        let seq = frame["seq"].as_u64().expect("an event has a seq");
        if self.next_seq.is_none() {
            self.begin();
        }
        assert_eq!(seq, self.next_seq.unwrap_or(seq), "events come densely and in order");
        self.next_seq = Some(seq + 1);
    }

    /// Watermarks never go back.
    fn receipt(&mut self, frame: &Value) {
        let number = |field: &str| frame[field].as_str().and_then(|text| text.parse::<u64>().ok()).expect("a decimal string");
        let who = format!("{} {}", frame["conversation"], frame["member"]);
        let (told, known) = ([number("delivered"), number("read")], self.marks.entry(who).or_default());
        assert!(number("rev") > 0 && told[0] >= known[0] && told[1] >= known[1], "{told:?} behind {known:?}");
        *known = told;
    }

    /// A send has its answer.
    fn settled(&mut self, id: MessageId) {
        let answers = self.answers.entry(id).or_default();
        *answers += 1;
        let sends = self.sends.get(&id).copied().unwrap_or(0);
        assert!(*answers <= sends, "{answers} answers to {sends} sends of {id}");
    }
}
