//! Hostile input, row by row, over raw sockets against the real binary: each gets its clear answer and moves its counter, two witnesses who chat
//! beside it notice nothing, the log keeps its secrets, and the server's memory stays where it was.
//!
//! [`LIST`] names every kind of hostile input there is to expect of a messaging server. A kind has rows here, or the reason why it cannot come yet.

mod attach;
mod frames;
mod http;
mod messages;
mod proto;
mod receipts;
#[path = "../raw/mod.rs"]
mod raw;
mod scenes;
#[path = "../support/mod.rs"]
mod support;
mod volume;
mod witness;

use std::collections::BTreeMap;

use protocol::codec::Encoding;
use raw::{Raw, Server};
use witness::Witnesses;

/// The user behind most rows: not among the witnesses, not in the conversation `d:1:2`.
pub(crate) const USER: u64 = 73;

/// How the server of a row is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Setting {
    /// As it comes, but with many sends a second and a log that says everything.
    Plain,
    /// Short deadlines before `hello`, and many sends a second.
    Hasty,
    /// A heartbeat each second, and little patience.
    Beating,
    /// Four sockets of an address, one of a user, and as many sends a second as by default.
    Narrow,
    /// Three handshakes a second.
    Slow,
    /// It is told to stop.
    Draining,
}

impl Setting {
    fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            // the witnesses speak faster than people do
            Self::Plain => &[
                ("SWITCHBOARD_LOG__LEVEL", "debug"),
                ("SWITCHBOARD_LIMITS__SENDS_PER_S", "1000"),
                ("SWITCHBOARD_LIMITS__SENDS_BURST", "1000"),
            ],
            Self::Hasty => &[
                ("SWITCHBOARD_GATEWAY__REQUEST_DEADLINE", "1s"),
                ("SWITCHBOARD_GATEWAY__HELLO_DEADLINE", "1s"),
                ("SWITCHBOARD_LIMITS__SENDS_PER_S", "5000"),
                ("SWITCHBOARD_LIMITS__SENDS_BURST", "5000"),
            ],
            Self::Beating => &[
                ("SWITCHBOARD_GATEWAY__HEARTBEAT", "1s"),
                ("SWITCHBOARD_GATEWAY__STALL_DEADLINE", "1s"),
                ("SWITCHBOARD_GATEWAY__TOKEN_GRACE", "1s"),
            ],
            Self::Narrow => &[("SWITCHBOARD_GATEWAY__SOCKETS_PER_IP", "4"), ("SWITCHBOARD_GATEWAY__SOCKETS_PER_USER", "1")],
            Self::Slow => &[("SWITCHBOARD_GATEWAY__HANDSHAKES_PER_S", "3")],
            Self::Draining => &[("SWITCHBOARD_DRAIN__DEADLINE", "60s")],
        }
    }
}

/// What is done, and what must come back.
pub(crate) enum Deed {
    /// Bytes on a new TCP connection. The status of the answer, none when there is none; words its head must contain.
    Http { send: Vec<u8>, status: Option<u16>, head: &'static str },
    /// Bytes on a WebSocket that has not said hello. The close code.
    Greeting { send: Vec<u8>, code: u16 },
    /// Bytes on an attached WebSocket. The close code.
    Fatal { send: Vec<u8>, code: u16 },
    /// Bytes on an attached WebSocket. Words the first answer must contain, none if there is no answer; the connection stays.
    Answered { send: Vec<u8>, words: &'static [&'static str] },
    /// What takes several steps. It asserts by itself.
    Scene(fn(&Server)),
}

/// One row of the table.
pub(crate) struct Row {
    /// Its number in [`LIST`].
    pub(crate) of: u8,
    /// What exactly.
    pub(crate) what: String,
    pub(crate) on: Setting,
    /// What the handshake agrees on, where the deed is done on a WebSocket.
    pub(crate) encoding: Encoding,
    pub(crate) deed: Deed,
    /// The counter that must move; empty: none does.
    pub(crate) counter: String,
}

/// Whether a kind of input can come today.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It has rows.
    Here,
    /// It can't come: there is no such thing in this server.
    Without(&'static str),
    /// It is measured where more than one process or more load is needed.
    Elsewhere(&'static str),
}
use Kind::{Elsewhere, Here, Without};

const ACCOUNTS: Kind = Without("accounts");
const GROUPS: Kind = Without("groups");
const UPLOADS: Kind = Without("attachments and previews");

/// Every kind of hostile input. The numbers only name them.
const LIST: [(u8, &str, Kind); 82] = [
    (1, "TCP connect, no byte", Here),
    (2, "TLS handshake that stalls, garbage in place of it", Elsewhere("tests/tls/test_tls.py")),
    (3, "header, one byte at a time", Here),
    (4, "header line of 20 MB, head over 16 KiB", Here),
    (5, "10,000 headers", Here),
    (6, "request line over 8 KiB", Here),
    (8, "two body lengths", Here),
    (9, "body on the upgrade", Here),
    (10, "other methods on the socket path, unknown paths", Here),
    (11, "no Upgrade or Connection", Here),
    (12, "another WebSocket version, or none", Here),
    (13, "Sec-WebSocket-Key missing, short, twice", Here),
    (14, "unknown sub-protocol", Here),
    (15, "absurd extension offers", Here),
    (16, "foreign, null and look-alike origins", Here),
    (18, "token in the URL", Here),
    (20, "too many sockets of an address, of a user", Here),
    (21, "handshakes too fast, or at a node that drains", Here),
    (22, "HTTP/2, CONNECT", Here),
    (23, "forged X-Forwarded-For", Here),
    (25, "unmasked frame", Here),
    (26, "reserved bits", Here),
    (27, "reserved opcodes", Here),
    (28, "long or fragmented control frames", Here),
    (30, "length of 2^63-1, no data", Here),
    (31, "message over 64 KiB", Here),
    (32, "fragments without end", Here),
    (34, "ping between fragments", Here),
    (35, "text that is not UTF-8", Here),
    (36, "binary where text was agreed, text where binary was", Here),
    (37, "ping flood, unsolicited pongs", Here),
    (40, "compressed frames", Here),
    (42, "a client that never reads", Here),
    (43, "half-open, reset, end in mid frame", Here),
    (45, "no JSON object", Here),
    (46, "deep nesting", Here),
    (48, "unknown fields and types", Here),
    (49, "wrong types of fields", Here),
    (51, "strange text", Here),
    (52, "damaged Protobuf", Here),
    (54, "body of 0 bytes, at the limit, over it", Here),
    (55, "text that looks like SQL, HTML, a format, a terminal's or a log's", Here),
    (56, "other protocol versions", Here),
    (57, "first frame is no hello, or none comes", Here),
    (58, "second hello", Here),
    (59, "tokens of other algorithms and keys", Here),
    (62, "tokens for others, long, cut, not base64", Here),
    (63, "token revoked while connected", ACCOUNTS),
    (64, "token expires on a live socket", Here),
    (65, "resume ticket forged", Without("resume tickets: a cursor is a number, judged with the token")),
    (66, "another device's token", Here),
    (67, "resume token of others", Without("resume tokens")),
    (68, "cursor ahead, negative, of another epoch", Here),
    (69, "the same device twice", Here),
    (70, "guessing one-time codes", ACCOUNTS),
    (71, "one id a thousand times", Here),
    (73, "ids that are no UUID of version 7", Here),
    (74, "conversations one is not in", Here),
    (75, "deleted or blocked users", ACCOUNTS),
    (76, "another tenant's conversation", Without("tenants")),
    (79, "10,000 members in one invite", GROUPS),
    (80, "two administrators remove each other", GROUPS),
    (81, "edit of another's message", Without("edits")),
    (82, "typing at 1,000 a second", Here),
    (83, "sends far over the limit", Here),
    (85, "subscribe to 1,000,000 presences", Here),
    (86, "attachments", UPLOADS),
    (87, "links to inner addresses", UPLOADS),
    (88, "forged webhooks", Without("webhooks")),
    (89, "prekey floods", Without("keys of clients")),
    (90, "stale device lists", Without("keys of clients")),
    (92, "look-alike names", ACCOUNTS),
    (93, "administration without the right to it", Without("an administration interface")),
    (94, "no HTTP at all", Here),
    (95, "a token for the asking, through a proxy", Here),
    (96, "errors and requests without end", Here),
    (97, "acknowledgement of what was never sent", Here),
    (98, "close frames that are none", Here),
    (99, "pages asked for and not read", Here),
    (101, "read marks without end", Here),
    (102, "read marks that mean nothing", Here),
    (100, "a slow reader beside a busy one", Elsewhere("server/tests/slow_reader.rs")),
];

fn rows(plain: &Server) -> Vec<Row> {
    [http::rows(), frames::rows(), messages::rows(), proto::rows(plain), receipts::rows(), attach::rows(plain), scenes::rows()]
        .into_iter()
        .flatten()
        .collect()
}

/// A row of the plain server with its usual counter.
pub(crate) fn row(of: u8, what: &str, deed: Deed) -> Row {
    let counter = match &deed {
        Deed::Http { status: Some(101), .. } | Deed::Scene(_) => String::new(),
        Deed::Http { .. } => "switchboard_http_rejected_total".to_owned(),
        Deed::Greeting { code, .. } | Deed::Fatal { code, .. } => format!("switchboard_closed_total{{code=\"{code}\"}}"),
        Deed::Answered { words, .. } => {
            let code = words.iter().find(|word| protocol::ErrorCode::ALL.iter().any(|code| code.name() == **word));
            code.map_or_else(String::new, |code| format!("switchboard_refused_total{{code=\"{code}\"}}"))
        }
    };
    Row { of, what: what.to_owned(), on: Setting::Plain, encoding: Encoding::Json, deed, counter }
}

/// Does it. Panics unless the answer is as it must be.
pub(crate) fn perform(row: &Row, server: &Server) {
    let name = format!("{} {}", row.of, row.what);
    // the server may answer and close before all is written
    match &row.deed {
        Deed::Http { send, status, head } => {
            let mut raw = Raw::connect(server.address());
            let _ = raw.write(send);
            let answer = raw.head();
            let got = answer.as_ref().and_then(|head| head.split(' ').nth(1)?.parse::<u16>().ok());
            assert_eq!(got, *status, "{name}: {answer:?}");
            assert!(answer.unwrap_or_default().contains(head), "{name}: the answer says {head:?}");
        }
        Deed::Greeting { send, code } => {
            let mut raw = Raw::upgrade_to(server.address(), row.encoding);
            let _ = raw.write(send);
            assert_eq!(raw.close_code(), Some(*code), "{name}");
        }
        Deed::Fatal { send, code } => {
            let mut raw = Raw::attach_new_in(server, USER, row.encoding);
            let _ = raw.write(send);
            assert_eq!(raw.close_code(), Some(*code), "{name}");
        }
        Deed::Answered { send, words } => {
            let mut raw = Raw::attach_new_in(server, USER, row.encoding);
            raw.write(send).expect("the server reads");
            let answer = if words.is_empty() { String::new() } else { raw.answer() };
            assert!(words.iter().all(|word| answer.contains(word)), "{name}: {words:?} in {answer}");
            raw.ping();
            raw.until("pong");
        }
        Deed::Scene(play) => play(server),
    }
}

/// The row between two exchanges of the witnesses, and its counter.
fn check(row: &Row, server: &Server, witnesses: &Witnesses) {
    println!("row {} {}", row.of, row.what);
    let before = server.counter(&row.counter);
    witnesses.chat();
    perform(row, server);
    if !row.counter.is_empty() {
        server.wait_until(&row.what, || server.counter(&row.counter) > before);
    }
    witnesses.chat();
}

#[test]
fn every_kind_of_hostile_input_has_rows_or_a_reason() {
    let server = Server::start();
    let mut counts = BTreeMap::new();
    for row in rows(&server) {
        *counts.entry(row.of).or_insert(0) += 1;
    }
    for (number, name, kind) in LIST {
        let rows = counts.remove(&number).unwrap_or(0);
        match kind {
            Here => assert!(rows > 0, "{number} {name} has no row"),
            Without(what) | Elsewhere(what) => assert_eq!(rows, 0, "{number} {name} ({what}) has rows: say Here"),
        }
    }
    assert!(counts.is_empty(), "rows of kinds that are not in the list: {counts:?}");
}

#[test]
fn every_row_is_answered_and_disturbs_nobody() {
    let plain = Server::start_with(Setting::Plain.settings());
    let mut rows = rows(&plain);
    rows.sort_by_key(|row| row.on);
    let secrets = [plain.token(USER), "eyJhbGciOi".to_owned(), messages::MARKER.to_owned()];
    let (mut plain, mut failed) = (Some(plain), Vec::new());
    for on in rows.chunk_by(|one, other| one.on == other.on) {
        let setting = on[0].on;
        let server = plain.take().unwrap_or_else(|| Server::start_with(setting.settings()));
        let witnesses = Witnesses::attach(&server);
        for row in on {
            let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(row, &server, &witnesses)));
            if checked.is_err() {
                failed.push(format!("{} {}", row.of, row.what));
            }
        }
        witnesses.part();
        let log = server.whole_log();
        let told = secrets.iter().find(|secret| log.contains(secret.as_str()));
        assert_eq!(told, None, "tokens and bodies stay out of the log ({setting:?})");
        assert!(!log.contains("panicked"), "a task has panicked ({setting:?}): {}", server.log());
    }
    assert!(failed.is_empty(), "{} rows: {failed:#?}", failed.len());
}
