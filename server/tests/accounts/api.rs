//! A client of the HTTP API, made of a socket: it can say anything, and sees everything of an answer.
#![allow(dead_code, reason = "each test file uses its part of it")]

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use crate::raw::{Raw, Server};
use crate::support::PATIENCE;

/// A request to be made.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Option<Vec<u8>>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) text: String,
    pub(crate) json: Value,
}

pub(crate) fn get(path: &str) -> Call {
    Call { method: "GET".into(), path: path.into(), headers: Vec::new(), body: None }
}

pub(crate) fn delete(path: &str) -> Call {
    Call { method: "DELETE".into(), ..get(path) }
}

pub(crate) fn post(path: &str, body: &Value) -> Call {
    Call { method: "POST".into(), ..get(path) }.header("Content-Type", "application/json").body(body.to_string().as_bytes())
}

pub(crate) fn patch(path: &str, body: &Value) -> Call {
    Call { method: "PATCH".into(), ..post(path, body) }
}

impl Call {
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(crate) fn body(mut self, body: &[u8]) -> Self {
        self.body = Some(body.to_vec());
        self
    }

    pub(crate) fn by(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    pub(crate) fn key(self, key: &str) -> Self {
        self.header("Idempotency-Key", key)
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\nHost: localhost\r\n", self.method, self.path);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if let Some(body) = &self.body {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        [head.as_bytes(), b"\r\n", self.body.as_deref().unwrap_or_default()].concat()
    }

    pub(crate) fn send(&self, server: &Server) -> Answer {
        self.send_to(server.address())
    }

    pub(crate) fn send_to(&self, address: SocketAddr) -> Answer {
        let mut stream = TcpStream::connect(address).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        // a server that has heard enough may close while it is still being written to
        let _ = stream.write_all(&self.bytes());
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let text = String::from_utf8(bytes).expect("an answer is text");
        let (head, text) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer to {} {}", self.method, self.path));
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a status");
        let headers = lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_lowercase(), value.to_owned()));
        let json = serde_json::from_str(text).unwrap_or_default();
        Answer { status, headers: headers.collect(), text: text.to_owned(), json }
    }
}

impl Answer {
    /// The data of a good answer.
    pub(crate) fn data(&self) -> &Value {
        assert!((200..300).contains(&self.status) && self.json["success"] == true, "{self:?}");
        &self.json["data"]
    }

    /// Status and code of a refusal.
    pub(crate) fn refusal(&self) -> (u16, &str) {
        assert_eq!(self.json["success"], false, "{self:?}");
        (self.status, self.json["error"]["code"].as_str().expect("a code"))
    }

    /// All of it but the time of day.
    pub(crate) fn timeless(mut self) -> Self {
        self.headers.remove("date");
        self
    }
}

/// A device that is logged in.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    pub(crate) user: String,
    pub(crate) name: String,
    pub(crate) access: String,
    pub(crate) refresh: String,
}

pub(crate) fn phone(last: u32) -> String {
    format!("+49151{last:08}")
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

impl Device {
    pub(crate) fn of(data: &Value) -> Self {
        let field = |name: &str| text(&data[name]);
        Self { user: field("user"), name: field("device"), access: field("access_token"), refresh: field("refresh_token") }
    }

    /// Asks for a code and logs in with it.
    pub(crate) fn log_in(server: &Server, phone: &str, name: &str) -> Self {
        let body = json!({"phone": phone, "code": ask(server, phone), "device": name, "name": "Ann"});
        Self::of(post("/v1/registrations/verify", &body).send(server).data())
    }

    /// A live socket of this device.
    pub(crate) fn attach(&self, server: &Server) -> Raw {
        let mut raw = Raw::upgrade(server.address(), &[&format!("Authorization: Bearer {}", self.access)]);
        raw.text(r#"{"type":"hello"}"#);
        raw.until("\"live\"");
        raw
    }
}

/// Asks for a code; one that comes too soon after the last is asked for again when the server says.
pub(crate) fn ask(server: &Server, phone: &str) -> String {
    loop {
        let answer = post("/v1/registrations", &json!({"phone": phone})).send(server);
        match answer.json["error"]["retry_after_ms"].as_u64() {
            Some(ms) if answer.status == 429 && ms < 10_000 => std::thread::sleep(Duration::from_millis(ms)),
            _ => return text(&answer.data()["dev_code"]),
        }
    }
}
