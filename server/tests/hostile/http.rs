//! Rows of TCP and HTTP, up to the upgrade.

use crate::{Deed, Row, row};

/// A good upgrade.
pub(crate) const GOOD: [&str; 6] = [
    "GET /ws HTTP/1.1",
    "Host: localhost",
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
];

/// What hyper itself ends is counted so.
const BY_HYPER: &str = "switchboard_ended_total{why=\"http_error\"}";

pub(crate) fn request(lines: &[&str]) -> Vec<u8> {
    [lines.join("\r\n").as_bytes(), b"\r\n\r\n"].concat()
}

fn without(name: &str) -> Vec<u8> {
    request(&GOOD.iter().filter(|line| !line.starts_with(name)).copied().collect::<Vec<_>>())
}

fn with(line: &str) -> Vec<u8> {
    let name = line.split(':').next().unwrap_or_default();
    request(&GOOD.iter().filter(|good| !good.starts_with(name)).copied().chain([line]).collect::<Vec<_>>())
}

/// A good upgrade with further lines.
pub(crate) fn and(lines: &[&str]) -> Vec<u8> {
    request(&GOOD.iter().chain(lines).copied().collect::<Vec<_>>())
}

fn first(line: &str) -> Vec<u8> {
    request(&[line].into_iter().chain(GOOD[1..].iter().copied()).collect::<Vec<_>>())
}

fn answered(of: u8, what: &str, send: Vec<u8>, status: u16) -> Row {
    row(of, what, Deed::Http { send, status: Some(status), head: "" })
}

fn says(of: u8, what: &str, send: Vec<u8>, status: u16, head: &'static str) -> Row {
    row(of, what, Deed::Http { send, status: Some(status), head })
}

fn by_hyper(of: u8, what: &str, send: Vec<u8>, status: u16) -> Row {
    Row { counter: BY_HYPER.to_owned(), ..answered(of, what, send, status) }
}

/// A route of its own answers it; nothing of the socket path counts it.
fn by_route(of: u8, what: &str, send: Vec<u8>, status: u16) -> Row {
    Row { counter: String::new(), ..answered(of, what, send, status) }
}

pub(crate) fn rows() -> Vec<Row> {
    [heads(), upgrades(), origins_and_tokens()].into_iter().flatten().collect()
}

fn heads() -> Vec<Row> {
    let many: Vec<String> = (0..10_000).map(|n| format!("X-{n}: y")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let few: Vec<String> = (0..200).map(|n| format!("X-{n}: y")).collect();
    let few: Vec<&str> = few.iter().map(String::as_str).collect();
    let long = |bytes| and(&[&format!("X-Long: {}", "x".repeat(bytes))]);
    let both = ["Content-Length: 4", "Transfer-Encoding: chunked"];
    vec![
        by_hyper(4, "head over 16 KiB", long(20_000), 431),
        by_hyper(4, "header line of 20 MB", long(20_000_000), 431),
        by_hyper(5, "10,000 headers", and(&many), 431),
        by_hyper(5, "200 headers in few bytes", and(&few), 431),
        answered(6, "request line over 8 KiB", first(&format!("GET /ws?{} HTTP/1.1", "x".repeat(9000))), 414),
        by_hyper(8, "two lengths", and(&["Content-Length: 1", "Content-Length: 2"]), 400),
        answered(8, "the same length twice", and(&["Content-Length: 4", "Content-Length: 4"]), 400),
        answered(8, "length and chunks", [and(&both), b"0\r\n\r\n".to_vec()].concat(), 400),
        answered(9, "body on the upgrade", [and(&["Content-Length: 4"]), b"body".to_vec()].concat(), 400),
        answered(9, "chunked body on the upgrade", and(&["Transfer-Encoding: chunked"]), 400),
        says(10, "POST to the socket path", first("POST /ws HTTP/1.1"), 405, "allow: get"),
        answered(10, "HEAD to the socket path", first("HEAD /ws HTTP/1.1"), 405),
        by_route(10, "unknown path", request(&["GET /nothing HTTP/1.1", "Host: localhost"]), 404),
        by_route(10, "a path that climbs", request(&["GET /../../etc/passwd HTTP/1.1", "Host: localhost"]), 404),
        by_route(10, "POST to a page", request(&["POST /health HTTP/1.1", "Host: localhost"]), 405),
        Row {
            counter: BY_HYPER.to_owned(),
            ..row(
                22,
                "HTTP/2 by prior knowledge",
                Deed::Http { send: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), status: None, head: "" },
            )
        },
        by_route(22, "CONNECT", request(&["CONNECT example.org:443 HTTP/1.1", "Host: example.org"]), 404),
        by_hyper(94, "a TLS greeting", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(), 400),
        by_hyper(94, "a space before the colon", and(&["X-Odd : y"]), 400),
        by_hyper(94, "NUL in a header", and(&["X-Odd: a\0b"]), 400),
        by_hyper(94, "a line that goes on", and(&["X-Odd: a", " b"]), 400),
    ]
}

fn upgrades() -> Vec<Row> {
    let old = first("GET /ws HTTP/1.0");
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=99, x-bomb";
    vec![
        says(11, "no Upgrade", without("Upgrade"), 426, "upgrade: websocket"),
        answered(11, "no Connection", without("Connection"), 426),
        answered(11, "another Upgrade", with("Upgrade: h2c"), 426),
        says(12, "version 8", with("Sec-WebSocket-Version: 8"), 426, "sec-websocket-version: 13"),
        answered(12, "no version", without("Sec-WebSocket-Version"), 426),
        answered(12, "two versions", and(&["Sec-WebSocket-Version: 8"]), 426),
        answered(13, "no key", without("Sec-WebSocket-Key"), 400),
        answered(13, "short key", with("Sec-WebSocket-Key: c2hvcnQ="), 400),
        answered(13, "no base64", with("Sec-WebSocket-Key: !!!!!!!!!!!!!!!!!!!!!!=="), 400),
        answered(13, "two keys", and(&["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]), 400),
        answered(14, "unknown sub-protocol", and(&["Sec-WebSocket-Protocol: graphql-ws"]), 400),
        answered(14, "empty sub-protocol", and(&["Sec-WebSocket-Protocol: "]), 400),
        answered(14, "only a token", and(&["Sec-WebSocket-Protocol: switchboard.bearer.abc"]), 400),
        says(15, "absurd extension offer is ignored", and(&[offer]), 101, "upgrade: websocket"),
        answered(11, "upgrade over HTTP/1.0", old, 400),
        answered(94, "no Host", without("Host"), 400),
        answered(94, "two Hosts", and(&["Host: other"]), 400),
    ]
}

fn origins_and_tokens() -> Vec<Row> {
    let origin = |what: &str, origin: &str| answered(16, what, and(&[&format!("Origin: {origin}")]), 403);
    let bearer =
        |what: &str, value: &str| says(62, what, and(&[&format!("Authorization: {value}")]), 401, "www-authenticate: bearer");
    let in_url = |what: &str, query: &str| answered(18, what, first(&format!("GET /ws?{query} HTTP/1.1")), 400);
    let wanted = r#"{"user":"1"}"#;
    let ask = |line: &str| {
        let length = format!("Content-Length: {}", wanted.len());
        let head = ["POST /dev/token HTTP/1.1", "Host: localhost", "Content-Type: application/json", line, &length];
        [request(&head), wanted.as_bytes().to_vec()].concat()
    };
    vec![
        origin("foreign", "https://evil.example"),
        origin("null", "null"),
        origin("empty", ""),
        origin("longer name", "http://localhost.evil.example"),
        origin("name before ours", "http://evil.example/localhost"),
        origin("another port", "http://localhost:1"),
        origin("another scheme", "https://localhost"),
        origin("another case", "HTTP://LOCALHOST"),
        answered(16, "two origins", and(&["Origin: http://localhost", "Origin: https://evil.example"]), 403),
        answered(16, "its own origin is let in", and(&["Origin: http://localhost"]), 101),
        in_url("by its name", "access_token=eyJhbGciOi"),
        in_url("by its look", "x=eyJhbGciOi"),
        in_url("in capitals", "TOKEN=secret"),
        bearer("header: not a token", "Bearer abc.def.ghi"),
        bearer("header: another scheme", "Basic YTpi"),
        bearer("header: nothing behind the scheme", "Bearer"),
        answered(62, "two headers", and(&["Authorization: Bearer a.b.c", "Authorization: Bearer a.b.c"]), 401),
        bearer("header: 12 KiB", &format!("Bearer {}", "a".repeat(12 * 1024))),
        by_route(95, "through a proxy", ask("X-Forwarded-For: 203.0.113.7"), 403),
        by_route(95, "through a proxy, by the newer header", ask("Forwarded: for=203.0.113.7"), 403),
        by_route(95, "from another page", ask("Origin: https://evil.example"), 403),
        by_route(95, "from another name of this machine", ask("Origin: http://rebound.example"), 403),
    ]
}
