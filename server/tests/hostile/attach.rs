//! Rows of tokens and of the first frame.

use jsonwebtoken::{Algorithm, EncodingKey, Header, crypto};
use serde_json::{Value, json};

use crate::raw::{Server, claims, client_frame};
use crate::{Deed, Row, USER, row};

fn greets(of: u8, what: &str, frame: &str, code: u16) -> Row {
    row(of, what, Deed::Greeting { send: client_frame(0x81, frame.as_bytes()), code })
}

fn hello(token: &str, fields: &str) -> String {
    format!(r#"{{"type":"hello","token":"{token}"{fields}}}"#)
}

/// base64url without padding.
fn base64url(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let group = |chunk: &[u8]| {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        let letter = move |at: usize| char::from(LETTERS[(bits >> (18 - 6 * at) & 63) as usize]);
        (0..=chunk.len()).map(letter).collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}

/// A token with any header, signed by HMAC-SHA256 with this key.
fn forged(header: &Value, claims: &Value, key: &EncodingKey) -> String {
    let signed = [base64url(header.to_string().as_bytes()), base64url(claims.to_string().as_bytes())].join(".");
    let signature = crypto::sign(signed.as_bytes(), key, Algorithm::HS256).expect("HMAC signs anything");
    format!("{signed}.{signature}")
}

pub(crate) fn rows(server: &Server) -> Vec<Row> {
    let good = server.token(USER);
    let bound = server.device_token(USER, "phone");
    let binary = Deed::Greeting { send: client_frame(0x82, b"{}"), code: 1003 };
    let mut rows = vec![
        greets(57, "another frame", r#"{"type":"ping"}"#, 4401),
        greets(57, "a send", r#"{"type":"send"}"#, 4400),
        greets(57, "no JSON", "hello", 4401),
        greets(57, "nothing in it", "", 4401),
        greets(57, "a hello without token", r#"{"type":"hello"}"#, 4401),
        row(36, "binary in place of hello", binary),
        greets(62, "not base64", &hello("a.b.c", ""), 4401),
        greets(62, "empty", &hello("", ""), 4401),
        greets(62, "60,000 letters", &hello(&"a".repeat(60_000), ""), 4401),
        greets(62, "60,000 dots", &hello(&".".repeat(60_000), ""), 4401),
        row(
            62,
            "over 64 KiB",
            Deed::Greeting { send: client_frame(0x81, hello(&"a".repeat(100 * 1024), "").as_bytes()), code: 1009 },
        ),
        greets(62, "cut signature", &hello(&good[..good.len() - 3], ""), 4401),
        greets(62, "no signature", &hello(good.rsplit_once('.').expect("three parts").0, ""), 4401),
        greets(62, "not a string", r#"{"type":"hello","token":7}"#, 4400),
        greets(66, "a token for another device", &hello(&bound, r#","device":"tablet""#), 4403),
        greets(66, "a device that is no name", &hello(&good, r#","device":"a/../b""#), 4400),
        greets(66, "a device of 65 letters", &hello(&good, &format!(r#","device":"{}""#, "a".repeat(65))), 4400),
        greets(68, "a cursor as text", &hello(&good, r#","cursor":"5""#), 4400),
        greets(68, "a negative cursor", &hello(&good, r#","cursor":-1"#), 4400),
        greets(68, "a cursor over 2^64", &hello(&good, r#","cursor":18446744073709551616"#), 4400),
        greets(68, "an epoch as number", &hello(&good, r#","epoch":1,"cursor":0"#), 4400),
        greets(56, "newer", &hello(&good, r#","version":2"#), 4426),
        greets(56, "older", &hello(&good, r#","version":0"#), 4426),
        greets(56, "much newer", &hello(&good, r#","version":18446744073709551615"#), 4426),
    ];
    rows.extend(algorithms(server, &good));
    rows.extend(wrong_claims(server));
    rows
}

/// Each of these names an algorithm or a key of its own; only the server's secret and HS256 count.
fn algorithms(server: &Server, good: &str) -> Vec<Row> {
    let payload = good.split('.').nth(1).expect("three parts");
    let unsigned = |header: Value| format!("{}.{payload}.", base64url(header.to_string().as_bytes()));
    let (ours, theirs) = (server.key(), EncodingKey::from_secret(&[7; 32]));
    let claims = claims(USER, 600);
    let own_key = json!({"alg": "HS256", "jwk": {"kty": "oct", "k": base64url(&[7; 32])}});
    let tokens = [
        ("none", unsigned(json!({"alg": "none", "typ": "JWT"}))),
        ("None", unsigned(json!({"alg": "None"}))),
        ("no signature under HS256", unsigned(json!({"alg": "HS256"}))),
        ("no header at all", format!(".{payload}.")),
        ("RS256 over our own secret", forged(&json!({"alg": "RS256"}), &claims, &ours)),
        ("HS512 over our own secret", forged(&json!({"alg": "HS512"}), &claims, &ours)),
        ("an unknown algorithm", forged(&json!({"alg": "HS257"}), &claims, &ours)),
        ("another key", forged(&json!({"alg": "HS256"}), &claims, &theirs)),
        ("a key of its own in the header", forged(&own_key, &claims, &theirs)),
        (
            "a key id that is a path",
            forged(&json!({"alg": "HS256", "kid": "../../../dev/null"}), &claims, &EncodingKey::from_secret(b"")),
        ),
        (
            "a key id that is SQL",
            forged(&json!({"alg": "HS256", "kid": "' UNION SELECT 'k"}), &claims, &EncodingKey::from_secret(b"k")),
        ),
        ("a key to be fetched", forged(&json!({"alg": "HS256", "jku": "http://127.0.0.1:1/"}), &claims, &theirs)),
    ];
    tokens.iter().map(|(what, token)| greets(59, what, &hello(token, ""), 4401)).collect()
}

/// Signed by the server's own secret, and still not good.
fn wrong_claims(server: &Server) -> Vec<Row> {
    let token = |change: &dyn Fn(&mut Value)| {
        let mut claims = claims(USER, 600);
        change(&mut claims);
        jsonwebtoken::encode(&Header::default(), &claims, &server.key()).expect("a token")
    };
    let tokens = [
        ("for another audience", token(&|claims| claims["aud"] = json!("billing"))),
        ("of another issuer", token(&|claims| claims["iss"] = json!("somebody"))),
        ("expired", token(&|claims| claims["exp"] = json!(1_700_000_000))),
        ("not yet good", token(&|claims| claims["nbf"] = json!(32_503_680_000_u64))),
        ("of two users", token(&|claims| claims["user_id"] = json!("1"))),
        (
            "of the server itself",
            token(&|claims| {
                claims["sub"] = json!("0");
                claims["user_id"] = json!("0");
            }),
        ),
        ("of a number", token(&|claims| claims["sub"] = json!(73))),
        ("without an end", token(&|claims| drop(claims.as_object_mut().expect("an object").remove("exp")))),
        ("whose end is a text", token(&|claims| claims["exp"] = json!("tomorrow"))),
    ];
    tokens.iter().map(|(what, token)| greets(62, what, &hello(token, ""), 4401)).collect()
}
