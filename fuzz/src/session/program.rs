//! Bytes to steps. Every byte string is a program; most are short.

use protocol::ErrorCode;
use router::submit::Outcome;

use crate::messages::masked;

/// What happens next. `peer` counts the connections modulo how many there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A new connection, with a good token of this user in its handshake or without.
    Connect { user: Option<u64> },
    /// Bytes from a client.
    Bytes { peer: u8, bytes: Vec<u8> },
    /// A client stops or begins to read.
    Reads { peer: u8, reads: bool },
    /// A client goes.
    Gone { peer: u8 },
    /// The attempt that waits there gets its report. Accepted: it is written, and pushed or not.
    Report { at: u8, outcome: Outcome, pushed: bool },
    /// So many seconds pass.
    Seconds(u8),
    /// Heads are compared.
    Heal,
    /// What was read and acknowledged becomes receipts, pushed or not.
    Receipts { pushed: bool },
    /// An event is pushed again, of this seq.
    PushAgain { user: u64, seq: u64 },
    /// The mailboxes are another stream now.
    Renumber,
    /// The registry forgets everything.
    Forget,
    /// Everybody is told to go; or is closed.
    Drain { close: bool },
}

/// Reads a program.
pub struct Program<'a> {
    rest: &'a [u8],
}

/// Ids of messages; those of the last two are no good.
pub const IDS: u8 = 8;

/// The id of a message: of this time, except the last two of each eight.
pub fn id(number: u8, now_ms: u64) -> String {
    let time = match number % IDS {
        6 => 1,
        7 => (1 << 48) - 1,
        _ => now_ms,
    };
    format!("{:08x}-{:04x}-7000-8000-{:012x}", time >> 16, time & 0xffff, number % IDS)
}

impl<'a> Program<'a> {
    pub const fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        *first
    }

    fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.rest.len());
        let (front, rest) = self.rest.split_at(length);
        self.rest = rest;
        front
    }

    fn user(&mut self) -> u64 {
        u64::from(self.byte() % 3) + 1
    }

    /// The next step; none at the end.
    pub fn next_step(&mut self) -> Option<Step> {
        if self.rest.is_empty() {
            return None;
        }
        let (what, peer) = (self.byte(), self.byte());
        let text = |text: String| Step::Bytes { peer, bytes: masked(0x81, text.as_bytes()) };
        Some(match what % 20 {
            0 => Step::Connect { user: (peer % 4 != 0).then(|| self.user()) },
            1 | 2 => text(self.hello()),
            3..=6 => text(self.send()),
            7 => text(format!(r#"{{"type":"received","seq":{}}}"#, self.number())),
            8 => text(self.page()),
            9 => self.control(peer),
            10 => Step::Bytes { peer, bytes: masked(0x81, self.bytes()) },
            11 => Step::Bytes { peer, bytes: self.bytes().to_vec() },
            12 => Step::Bytes { peer, bytes: self.fragment() },
            13 | 14 => Step::Report { at: peer, outcome: self.outcome(), pushed: !self.byte().is_multiple_of(4) },
            15 => Step::Seconds(peer % 40),
            16 => Step::Reads { peer, reads: self.byte().is_multiple_of(2) },
            17 if peer.is_multiple_of(4) => Step::Heal,
            17 => Step::Receipts { pushed: peer % 4 != 1 },
            18 => Step::PushAgain { user: self.user(), seq: u64::from(peer) },
            _ => match peer % 8 {
                0 => Step::Renumber,
                1 => Step::Forget,
                2 => Step::Drain { close: false },
                3 => Step::Drain { close: true },
                _ => Step::Gone { peer: self.byte() },
            },
        })
    }

    /// Mostly small, sometimes at an edge.
    fn number(&mut self) -> String {
        match self.byte() {
            250 => u64::MAX.to_string(),
            251 => "-1".to_owned(),
            252 => "1.5".to_owned(),
            253 => "1e400".to_owned(),
            254 => (u64::MAX - 1).to_string(),
            255 => (1_u64 << 63).to_string(),
            small => small.to_string(),
        }
    }

    fn hello(&mut self) -> String {
        let flags = self.byte();
        let mut text = r#"{"type":"hello""#.to_owned();
        if flags & 1 != 0 {
            let token = if flags & 2 != 0 { crate::handshake::GOOD.as_str() } else { "a.b.c" };
            text.push_str(&format!(r#","token":"{token}""#));
        }
        if flags & 4 != 0 {
            text.push_str(&format!(r#","device":"d{}""#, self.byte() % 3));
        }
        if flags & 8 != 0 {
            text.push_str(&format!(r#","cursor":{}"#, self.number()));
        }
        if flags & 16 != 0 {
            text.push_str(&format!(r#","epoch":"{}""#, self.byte() % 4));
        }
        if flags & 32 != 0 {
            text.push_str(&format!(r#","version":{}"#, self.byte() % 4));
        }
        if flags & 64 != 0 {
            text.push_str(&format!(r#","rev":"{}""#, self.byte()));
        }
        text.push('}');
        text
    }

    fn send(&mut self) -> String {
        let id = id(self.byte(), gateway::node::now_ms());
        let to = match self.byte() % 8 {
            0 => "d:1:2".to_owned(),
            1 => "d:2:3".to_owned(),
            2 => "u:0".to_owned(),
            number @ 3..=5 => format!("u:{}", number - 2),
            _ => format!("u:{}", self.byte()),
        };
        let length = [1, 2, 100, 400, 512, 513, 2000, 0][usize::from(self.byte() % 8)];
        format!(r#"{{"type":"send","id":"{id}","to":"{to}","kind":"text","body":{{"text":"{}"}}}}"#, "x".repeat(length))
    }

    fn page(&mut self) -> String {
        let limit = self.number();
        match self.byte() % 8 {
            4 => format!(r#"{{"type":"read","conversation":"d:1:2","position":"{limit}"}}"#),
            5 => format!(r#"{{"type":"read","conversation":"d:2:3","position":"{}"}}"#, u64::MAX),
            6 => format!(r#"{{"type":"typing","to":"u:{}"}}"#, self.user()),
            7 => format!(r#"{{"type":"watch","users":["{}","{}","{limit}"]}}"#, self.user(), self.user()),
            0 => format!(r#"{{"type":"conversations","limit":{limit}}}"#),
            1 => format!(r#"{{"type":"conversations","before":"{}"}}"#, self.byte()),
            2 => format!(r#"{{"type":"history","conversation":"d:1:2","limit":{limit}}}"#),
            _ => format!(r#"{{"type":"history","conversation":"d:2:{}"}}"#, u64::from(self.byte() % 4) + 2),
        }
    }

    fn control(&mut self, peer: u8) -> Step {
        let bytes = match self.byte() % 6 {
            0 => masked(0x89, b"x"),
            1 => masked(0x8a, b"x"),
            2 => masked(0x88, &[3, 232]),
            3 => masked(0x88, &[15, 160, b'b', b'y', b'e']),
            4 => masked(0x89, b"x").repeat(usize::from(self.byte())),
            _ => masked(0x81, br#"{"type":"ping"}"#),
        };
        Step::Bytes { peer, bytes }
    }

    fn fragment(&mut self) -> Vec<u8> {
        let first = [0x01, 0x00, 0x80, 0x02][usize::from(self.byte() % 4)];
        masked(first, self.bytes())
    }

    fn outcome(&mut self) -> Outcome {
        match self.byte() {
            0..200 => Outcome::Accepted,
            200..210 => Outcome::Unknown,
            code => Outcome::Refused(ErrorCode::ALL[usize::from(code) % ErrorCode::ALL.len()]),
        }
    }
}

/// Programs to begin with.
pub fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    // two users attach; the first writes to the second; both are told
    let connect = |user: u8| vec![0, 1, user - 1];
    let hello = |peer: u8, flags: u8, more: &[u8]| [&[1, peer, flags][..], more].concat();
    let send = |peer: u8, id: u8, to: u8| vec![3, peer, id, to, 2];
    let report = |at: u8, outcome: u8| vec![13, at, outcome, 1];
    let both = [connect(1), hello(0, 8, &[0]), connect(2), hello(1, 8, &[0])].concat();
    let chat = [both.clone(), send(0, 1, 4), report(0, 0), vec![7, 1, 1], send(1, 2, 3), report(0, 0)].concat();
    let join = |parts: &[&[u8]]| parts.concat();
    vec![
        ("session", "chat", chat.clone()),
        ("session", "token in the frame", join(&[&[0, 0], &hello(0, 3, &[])])),
        (
            "session",
            "repeat and reuse",
            join(&[&both, &send(0, 1, 4), &send(0, 1, 4), &report(0, 0), &[3, 0, 1, 4, 3], &report(0, 0)]),
        ),
        (
            "session",
            "refused, fenced",
            join(&[&both, &send(0, 1, 4), &send(0, 2, 4), &report(0, 223), &send(0, 3, 4), &send(0, 1, 4), &report(0, 0)]),
        ),
        ("session", "no report", join(&[&both, &send(0, 1, 4), &[15, 7], &report(0, 0), &send(0, 1, 4), &report(0, 205)])),
        ("session", "pushes lost, healed", join(&[&both, &send(0, 1, 4), &[13, 0, 0, 0], &[17, 0], &[18, 1, 1]])),
        (
            "session",
            "does not read",
            join(&[&both, &[16, 1, 1], &send(0, 1, 4), &report(0, 0), &[8, 1, 5, 0], &[15, 30], &[16, 1, 0]]),
        ),
        ("session", "resync", join(&[&connect(1), &hello(0, 8, &[99]), &hello(0, 8, &[0])])),
        ("session", "another stream", join(&[&chat, &[19, 0], &[17, 0], &connect(2), &hello(2, 24, &[1, 2])])),
        ("session", "same device twice", join(&[&both, &connect(1), &hello(2, 8, &[0]), &[19, 4, 0]])),
        ("session", "drain", join(&[&both, &send(0, 1, 4), &[19, 3], &report(0, 0)])),
        (
            "session",
            "fragments and closes",
            join(&[&both, &[12, 0, 0, 3], b"{\"t", &[9, 0, 0], &[12, 0, 2, 1], b"}", &[9, 0, 3], &[9, 1, 2]]),
        ),
        ("session", "silence", join(&[&connect(1), &[15, 30], &both, &[15, 39], &[15, 39], &[15, 39]])),
        (
            "session",
            "receipts",
            join(&[
                &chat,
                &[8, 1, 9, 4, 17, 2, 8, 0, 2, 7, 1, 2],
                &[8, 1, 9, 6, 0, 7, 0, 2, 17, 1, 17, 2],
                &connect(2),
                &hello(2, 76, &[1, 2, 0]),
                &[19, 4, 1, 15, 9, 8, 1, 9, 5, 17, 2],
            ]),
        ),
        ("session", "pages", join(&[&chat, &[8, 0, 3, 0], &[8, 0, 0, 1, 9], &[8, 0, 250, 2], &[8, 1, 2, 2], &[8, 1, 0, 3, 0]])),
    ]
}
