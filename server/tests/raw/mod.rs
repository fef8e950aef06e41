//! Raw sockets against the real binary: a client that can say anything, a witness who chats beside it, and the server's own counters.

#![allow(dead_code, reason = "each test file uses its part of it")]

pub(crate) mod proto;

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use protocol::codec::Encoding;

use crate::support::{self, PATIENCE, Stand};

/// Users that have tokens.
const USERS: u64 = 100;
const WITNESSES: (u64, u64) = (91, 92);

/// The binary, its tokens and its metrics.
pub(crate) struct Server {
    runtime: tokio::runtime::Runtime,
    stand: Stand,
    server: support::Server,
    tokens: HashMap<u64, String>,
    address: SocketAddr,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    pub(crate) fn start_with(settings: &[(&'static str, &'static str)]) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let mut stand = Stand::new(settings);
        let (server, tokens, address) = runtime.block_on(async {
            let accounts = stand.accounts(USERS).await;
            let server = stand.start().await;
            let tokens = accounts.into_iter().map(|account| (account.user, account.token)).collect();
            (server, tokens, stand.address())
        });
        Self { runtime, stand, server, tokens, address }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn token(&self, user: u64) -> String {
        self.tokens[&user].clone()
    }

    pub(crate) fn device_token(&self, user: u64, device: &str) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
        command.args(["token", "--user", &user.to_string(), "--device", device, "--data"]).arg(self.stand.data());
        let output = command.output().expect("the binary runs");
        String::from_utf8(output.stdout).expect("a token is ASCII").trim().to_owned()
    }

    /// A token that expires soon, signed with the server's own secret.
    pub(crate) fn token_for_seconds(&self, user: u64, seconds: u64) -> String {
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims(user, seconds), &self.key()).expect("a token")
    }

    /// The key the server signs with.
    pub(crate) fn key(&self) -> jsonwebtoken::EncodingKey {
        let secret = std::fs::read_to_string(self.stand.data().join("dev-secret")).expect("the development secret");
        jsonwebtoken::EncodingKey::from_secret(secret.trim().as_bytes())
    }

    /// Sum of the samples whose line begins so.
    pub(crate) fn counter(&self, prefix: &str) -> u64 {
        let mut raw = Raw::connect(self.address);
        raw.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("metrics");
        let text = raw.rest();
        let samples = text.lines().filter(|line| !prefix.is_empty() && line.starts_with(prefix));
        samples.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum::<f64>() as u64
    }

    /// The folder of the server.
    pub(crate) fn data(&self) -> std::path::PathBuf {
        self.stand.data()
    }

    /// kill -9, and started again on the same folder and port.
    pub(crate) fn restarted(self) -> Self {
        let Self { runtime, mut stand, server, tokens, address } = self;
        let server = runtime.block_on(async {
            server.kill().await;
            stand.start().await
        });
        Self { runtime, stand, server, tokens, address }
    }

    pub(crate) fn wait_until(&self, what: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition() {
            assert!(Instant::now() < deadline, "{what}: never came true\n{}", self.log());
            std::thread::yield_now();
        }
    }

    pub(crate) fn log(&self) -> String {
        self.stand.tail()
    }

    /// The whole log.
    pub(crate) fn whole_log(&self) -> String {
        self.stand.whole_log()
    }

    /// Private memory of the process, bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.server.process().memory().expect("the server runs")
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        self.runtime.block_on(self.server.terminate());
    }

    /// Two who chat while others misbehave.
    pub(crate) fn witness(&self) -> Witness {
        let attach = |user| Raw::attach(self, user);
        Witness { sender: attach(WITNESSES.0), receiver: attach(WITNESSES.1), said: 0 }
    }
}

/// Good claims of a user.
pub(crate) fn claims(user: u64, seconds: u64) -> serde_json::Value {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    let user = user.to_string();
    serde_json::json!({
        "sub": user, "user_id": user, "iat": now, "nbf": now, "exp": now + seconds, "iss": "switchboard", "aud": "switchboard",
    })
}

/// Two who chat: each message arrives, once, in order, acknowledged.
pub(crate) struct Witness {
    sender: Raw,
    receiver: Raw,
    said: u64,
}

impl Witness {
    pub(crate) fn chat(&mut self) {
        self.said += 1;
        let text = format!("witness {}", self.said);
        let id = uuid::Uuid::now_v7();
        self.sender
            .text(&format!(r#"{{"type":"send","id":"{id}","to":"u:{}","kind":"text","body":{{"text":"{text}"}}}}"#, WITNESSES.1));
        for raw in [&mut self.sender, &mut self.receiver] {
            let event = raw.until("\"event\":\"message\"");
            assert!(event.contains(&text), "the witness was disturbed: {event}");
            raw.text(&format!(r#"{{"type":"received","seq":{}}}"#, self.said));
        }
        self.sender.until_or_seen("accepted", &id.to_string());
    }
}

/// A client that can say anything.
pub(crate) struct Raw {
    stream: TcpStream,
    input: Vec<u8>,
    encoding: Encoding,
    /// Frames that were passed over.
    seen: Vec<String>,
    /// Why nothing more can be read, if it was no orderly end.
    broke: Option<io::Error>,
}

impl Raw {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Self { stream, input: Vec::new(), encoding: Encoding::Json, seen: Vec::new(), broke: None }
    }

    /// A good handshake with further header lines.
    pub(crate) fn upgrade(address: SocketAddr, headers: &[&str]) -> Self {
        let mut raw = Self::connect(address);
        let more: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
        );
        raw.write(request.as_bytes()).expect("the handshake is written");
        assert_eq!(raw.status(), Some(101));
        raw
    }

    /// A good handshake that agrees on an encoding.
    pub(crate) fn upgrade_to(address: SocketAddr, encoding: Encoding) -> Self {
        let offer = format!("Sec-WebSocket-Protocol: {}", encoding.subprotocol());
        Self { encoding, ..Self::upgrade(address, &[&offer]) }
    }

    /// Attached, live, on the default device.
    pub(crate) fn attach(server: &Server, user: u64) -> Self {
        let mut raw = Self::upgrade(server.address, &[]);
        raw.text(&format!(r#"{{"type":"hello","token":"{}"}}"#, server.token(user)));
        raw.until("\"live\"");
        raw
    }

    /// Attached, live, on a device nobody has seen: its mailbox begins at its head.
    pub(crate) fn attach_new(server: &Server, user: u64) -> Self {
        Self::attach_new_in(server, user, Encoding::Json)
    }

    /// The same in an encoding.
    pub(crate) fn attach_new_in(server: &Server, user: u64, encoding: Encoding) -> Self {
        static DEVICES: AtomicU32 = AtomicU32::new(0);
        let device = format!("new-{}", DEVICES.fetch_add(1, Ordering::Relaxed));
        let (mut raw, token) = (Self::upgrade_to(server.address, encoding), server.token(user));
        match encoding {
            Encoding::Json => raw.text(&format!(r#"{{"type":"hello","token":"{token}","device":"{device}"}}"#)),
            Encoding::Proto => raw.write(&proto::hello(&token, &device)).expect("the server still reads"),
        }
        raw.until("\"live\"");
        raw
    }

    /// Waits no longer than this for a frame from now on.
    pub(crate) fn patience(&self, patience: Duration) {
        self.stream.set_read_timeout(Some(patience)).expect("a timeout");
    }

    /// A ping of the application.
    pub(crate) fn ping(&mut self) {
        match self.encoding {
            Encoding::Json => self.text(r#"{"type":"ping"}"#),
            Encoding::Proto => self.write(&proto::ping()).expect("the server still reads"),
        }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// No more bytes will come: FIN.
    pub(crate) fn finish(&mut self) {
        self.stream.shutdown(std::net::Shutdown::Write).expect("the socket is open");
    }

    /// Ends with a reset: bytes that were never read are thrown away.
    pub(crate) fn reset(self) {
        let mut byte = [0];
        self.stream.peek(&mut byte).expect("there is something to throw away");
        drop(self);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.write(&client_frame(0x81, text.as_bytes())).expect("the server still reads");
    }

    /// More input, or false at the end.
    fn fill(&mut self) -> bool {
        let mut buffer = [0; 4096];
        match read(&mut self.stream, &mut buffer) {
            Ok(0) => false,
            Ok(got) => {
                self.input.extend_from_slice(&buffer[..got]);
                true
            }
            Err(why) => {
                self.broke = Some(why);
                false
            }
        }
    }

    /// The status of an HTTP answer, its head taken off; none when the socket ends without one.
    pub(crate) fn status(&mut self) -> Option<u16> {
        self.head()?.split(' ').nth(1)?.parse().ok()
    }

    /// The head of an HTTP answer in lower case; none when the socket ends without one.
    pub(crate) fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.input.windows(4).position(|window| window == b"\r\n\r\n") {
                let head: Vec<u8> = self.input.drain(..end + 4).collect();
                return Some(String::from_utf8_lossy(&head).to_lowercase());
            }
            if !self.fill() {
                return None;
            }
        }
    }

    /// Everything until the end.
    fn rest(&mut self) -> String {
        while self.fill() {}
        String::from_utf8_lossy(&self.input).into_owned()
    }

    /// Whether the server ends the connection within this time.
    pub(crate) fn ended_within_ms(&mut self, ms: u64) -> bool {
        self.stream.set_read_timeout(Some(Duration::from_millis(ms))).expect("a timeout");
        let end = match read(&mut self.stream, &mut [0; 64]) {
            Ok(0) => true,
            Ok(_) => false,
            Err(why) => !matches!(why.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
        };
        self.stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        end
    }

    /// The next frame: first byte and payload. Pings are answered.
    pub(crate) fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some((length, at)) = head(&self.input)
                && self.input.len() >= at + length
            {
                let frame: Vec<u8> = self.input.drain(..at + length).collect();
                if frame[0] != 0x89 {
                    return Some((frame[0], frame[at..].to_vec()));
                }
                let _ = self.write(&client_frame(0x8a, &frame[at..]));
            } else if !self.fill() {
                return None;
            }
        }
    }

    /// The next frame that contains this; one in Protobuf, in the words of JSON.
    pub(crate) fn until(&mut self, word: &str) -> String {
        loop {
            let Some((first, payload)) = self.frame() else {
                panic!("the connection ended ({:?}) before {word:?}; seen: {:?}", self.broke, self.seen)
            };
            let text = match (self.encoding, first) {
                (Encoding::Proto, 0x82) => proto::words(&payload),
                _ => String::from_utf8_lossy(&payload).into_owned(),
            };
            assert_ne!(
                first,
                0x88,
                "closed with {:?} before {word:?}",
                payload.get(..2).map(|code| u16::from_be_bytes([code[0], code[1]]))
            );
            if first == if self.encoding.is_text() { 0x81 } else { 0x82 } && text.contains(word) {
                return text;
            }
            self.seen.push(text);
        }
    }

    /// A frame with both words, among those passed over or to come.
    pub(crate) fn until_or_seen(&mut self, word: &str, other: &str) {
        if !self.seen.iter().any(|text| text.contains(word) && text.contains(other)) {
            assert!(self.until(word).contains(other));
        }
        self.seen.clear();
    }

    /// The next frame that is no event and no hint.
    pub(crate) fn answer(&mut self) -> String {
        loop {
            let text = self.answer_or_hint();
            if !["receipt", "typing", "presence"].iter().any(|kind| text.starts_with(&format!(r#"{{"type":"{kind}""#))) {
                return text;
            }
        }
    }

    /// The next text frame that is no event.
    pub(crate) fn answer_or_hint(&mut self) -> String {
        loop {
            let text = self.until("");
            if !text.starts_with(r#"{"type":"event""#) {
                return text;
            }
        }
    }

    /// The code of the close frame; none when the socket ends without one.
    pub(crate) fn close_code(&mut self) -> Option<u16> {
        loop {
            let (first, payload) = self.frame()?;
            if first == 0x88 {
                return Some(u16::from_be_bytes([*payload.first()?, *payload.get(1)?]));
            }
        }
    }
}

/// One read. Where a timeout is set it may be interrupted without any signal handler, by a freeze of the machine for one (signal(7)).
pub(crate) fn read(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match stream.read(buffer) {
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// Payload length and where it begins, of a server's frame.
fn head(input: &[u8]) -> Option<(usize, usize)> {
    match input.get(1)? {
        126 => Some((usize::from(u16::from_be_bytes([*input.get(2)?, *input.get(3)?])), 4)),
        127 => Some((u64::from_be_bytes(input.get(2..10)?.try_into().ok()?) as usize, 10)),
        short => Some((usize::from(*short), 2)),
    }
}

/// A masked frame, its first byte as given.
pub(crate) fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..126 => frame.push(0x80 | short as u8),
        middle @ 126..65_536 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(middle as u16).to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}
