//! The upgrade's own part (hyper reads the head) and tokens.

use std::sync::{Arc, LazyLock};

use gateway::config::Config;
use gateway::deliver::Sessions;
use gateway::token::Tokens;
use gateway::{Gateway, Ports};
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Method, Request, Version};
use jsonwebtoken::{Algorithm, EncodingKey, Header, crypto};
use router::registry::NodeId;
use router::registry::memory::MemoryRegistry;
use router::submit::{Report, Submit};
use serde_json::{Value, json};
use storage::store::memory::MemoryStore;

/// The secret of the server under test.
pub const SECRET: [u8; 32] = [7; 32];
/// 1 January 2100, seconds since 1970.
const FAR: u64 = 4_102_444_800;
const ORIGIN: &str = "https://chat.example.org";

/// A token of user 1 that is good until 2100. The only one of its claims that a target may accept.
pub static GOOD: LazyLock<String> =
    LazyLock::new(|| sign(&json!({"alg": "HS256", "typ": "JWT"}).to_string(), &claims().to_string()));

static TOKENS: LazyLock<Tokens> = LazyLock::new(|| Tokens::new(&SECRET).expect("long enough"));

fn claims() -> Value {
    json!({"sub": "1", "user_id": "1", "iat": 1, "nbf": 1, "exp": FAR, "iss": "switchboard", "aud": "switchboard"})
}

/// base64url without padding.
fn base64url(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let group = |chunk: &[u8]| {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        (0..=chunk.len()).map(move |at| char::from(LETTERS[(bits >> (18 - 6 * at) & 63) as usize])).collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}

/// A token of any header and any claims, with a good HMAC over them.
fn sign(header: &str, claims: &str) -> String {
    let signed = [base64url(header.as_bytes()), base64url(claims.as_bytes())].join(".");
    let signature =
        crypto::sign(signed.as_bytes(), &EncodingKey::from_secret(&SECRET), Algorithm::HS256).expect("HMAC signs anything");
    format!("{signed}.{signature}")
}

struct Nowhere;
impl Submit for Nowhere {
    fn submit(&self, _record: protocol::record::Record, report: Report) {
        drop(report);
    }
}

/// A gateway that lets one origin in.
static NODE: LazyLock<Arc<Gateway>> = LazyLock::new(|| {
    let ports = Ports {
        submit: Arc::new(Nowhere),
        registry: Arc::new(MemoryRegistry::default()),
        budgets: None,
        marks: Arc::new(storage::receipt::NotKept),
        store: Arc::new(MemoryStore::default()),
        lag: None,
        links: None,
    };
    let config = Config { origins: vec![ORIGIN.to_owned()], ..Config::default() };
    let tokens = Tokens::new(&SECRET).expect("long enough");
    Gateway::new(config, ports, NodeId { node: 0, boot: 1 }, Arc::new(Sessions::default()), tokens)
});

/// A head as hyper would hand it over, or nothing where hyper would have refused it. One line each.
fn request(data: &[u8]) -> Option<Request<()>> {
    let mut lines = data.split(|byte| *byte == b'\n');
    let first = std::str::from_utf8(lines.next()?).ok()?;
    let mut words = first.split(' ');
    let method = Method::from_bytes(words.next()?.as_bytes()).ok()?;
    let version = match words.nth(1) {
        Some("HTTP/1.0") => Version::HTTP_10,
        _ => Version::HTTP_11,
    };
    let mut request = Request::builder().method(method).uri(first.split(' ').nth(1)?).version(version).body(()).ok()?;
    for line in lines.filter(|line| !line.is_empty()).take(100) {
        let at = line.iter().position(|byte| *byte == b':')?;
        let value = line[at + 1..].trim_ascii();
        request.headers_mut().append(HeaderName::from_bytes(&line[..at]).ok()?, HeaderValue::from_bytes(value).ok()?);
    }
    Some(request)
}

/// An upgrade: refused with a status that the protocol documents, or good in everything that is asked of it.
pub fn upgrade(data: &[u8]) {
    let Some(request) = request(data) else { return };
    let headers = request.headers();
    let all = |name: &str| headers.get_all(name).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>();
    match gateway::fuzz::upgrade(&request, &NODE) {
        Err(status) => assert!([400, 401, 403, 405, 414, 426].contains(&status), "{status} is not documented"),
        Ok(claims) => {
            assert!(request.method() == Method::GET && request.version() == Version::HTTP_11);
            assert_eq!(all("sec-websocket-version"), [b"13"]);
            assert!(all("sec-websocket-key").len() == 1 && all("sec-websocket-key")[0].len() == 24);
            assert_eq!(all("host").len(), 1);
            assert!(all("origin").iter().all(|origin| *origin == ORIGIN.as_bytes()) && all("origin").len() <= 1);
            assert!(all("transfer-encoding").is_empty());
            let query = request.uri().query().unwrap_or_default();
            assert!(!query.starts_with("token=") && !query.contains("&token=") && !query.contains("=eyJ"));
            let sent = || headers.values().any(|value| value.as_bytes().windows(GOOD.len()).any(|part| part == GOOD.as_bytes()));
            assert!(claims.is_none() || sent(), "nobody is let in without a good token");
        }
    }
}

/// A token as it is (first byte even), or a header and claims divided by a line's end, with a good signature over them (odd).
pub fn token(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    if first % 2 == 0 {
        if TOKENS.verify(text).is_ok() {
            assert_eq!(text, *GOOD, "a good token has one form");
        }
        return;
    }
    let (header, payload) = text.split_once('\n').unwrap_or((r#"{"alg":"HS256"}"#, text));
    let Ok(claims) = TOKENS.verify(&sign(header, payload)) else { return };
    let algorithm = serde_json::from_str::<Header>(header).map(|header| header.alg);
    assert_eq!(algorithm.ok(), Some(Algorithm::HS256), "{header}");
    assert!(claims.sub == claims.user_id && claims.sub.get() != 0);
    assert!(claims.nbf < FAR && claims.exp > 1_700_000_000, "{claims:?}");
}

/// Inputs to begin with.
pub fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let head = |more: &str| {
        format!(
            "GET /ws HTTP/1.1\nHost: localhost\nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n{more}"
        )
        .into_bytes()
    };
    let token = |first: u8, text: &str| [&[first][..], text.as_bytes()].concat();
    let device = claims().to_string().replace('{', r#"{"device":"phone-1","phone":"+15550100","#);
    vec![
        ("handshake", "good", head("")),
        (
            "handshake",
            "browser",
            head(&format!("Origin: {ORIGIN}\nSec-WebSocket-Protocol: switchboard.v1.json, switchboard.bearer.{}\n", *GOOD)),
        ),
        ("handshake", "program", head(&format!("Authorization: Bearer {}\n", *GOOD))),
        ("handshake", "bad token", head("Authorization: Bearer a.b.c\n")),
        ("handshake", "body", head("Content-Length: 4\nTransfer-Encoding: chunked\n")),
        ("handshake", "in the url", b"GET /ws?token=eyJhbGciOi HTTP/1.1\nHost: localhost\n".to_vec()),
        ("handshake", "post", b"POST http://localhost/ws HTTP/1.0\nUpgrade: websocket\n".to_vec()),
        ("token", "good", token(0, &GOOD)),
        ("token", "none", token(0, "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.")),
        ("token", "signed", token(1, &claims().to_string())),
        ("token", "signed for a device", token(1, &device)),
        (
            "token",
            "signed with a header",
            token(1, &format!("{}\n{}", r#"{"alg":"HS256","kid":"../k","jku":"http://127.0.0.1/"}"#, claims())),
        ),
        ("token", "signed with another algorithm", token(1, &format!("{}\n{}", r#"{"alg":"none"}"#, claims()))),
        ("token", "times without end", token(1, &claims().to_string().replace("4102444800", "18446744073709551615"))),
    ]
}
