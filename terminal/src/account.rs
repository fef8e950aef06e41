//! The account: signing in, tokens, and what a person asks of it.

use std::time::Duration;

use hyper::http::Method;
use jiff::{SignedDuration, Timestamp};
use protocol::UserId;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::core::Loss;
use crate::error::Error;
use crate::state::{Folder, Session};
use crate::wire::Place;
use crate::wire::http::{Call, call};

/// A token is renewed when it has less than this to live.
const EARLY: SignedDuration = SignedDuration::from_mins(1);
/// A code is asked for again this often, where the server says that it was too soon.
const TRIES: u32 = 4;
/// And has said a time not longer than this, milliseconds.
const PATIENCE_MS: u64 = 5_000;

/// A session as the server gives it.
#[derive(Deserialize)]
struct Grant {
    user: UserId,
    device: String,
    access_token: String,
    expires_at: String,
    refresh_token: String,
}

fn read<T: for<'de> Deserialize<'de>>(data: Value) -> Result<T, Error> {
    serde_json::from_value(data).map_err(|why| Error::Unreachable(format!("an answer outside the contract: {why}")))
}

impl From<Grant> for Session {
    fn from(grant: Grant) -> Self {
        let Grant { user, device, access_token, expires_at, refresh_token } = grant;
        Self { user, device, access_token, expires_at, refresh_token, refresh_key: None }
    }
}

/// Has a code sent. The code itself, if the server is in development mode and on this machine.
pub(crate) async fn request_code(place: &Place, phone: &str) -> Result<Option<String>, Error> {
    let asked = Call::post("/v1/registrations", json!({"phone": phone}));
    let mut tries = 1;
    let answer = loop {
        match call(place, &asked).await {
            // another device of ours has just had one
            Err(Error::Refused { status: 429, retry_after_ms, .. }) if tries < TRIES && retry_after_ms <= PATIENCE_MS => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(retry_after_ms)).await;
            }
            other => break other?,
        }
    };
    Ok(answer.data["dev_code"].as_str().filter(|_| answer.loopback).map(str::to_owned))
}

/// Signs this device in with a code, and keeps the session.
pub(crate) async fn verify(place: &Place, folder: &Folder, who: Who<'_>, code: &str) -> Result<Session, Error> {
    let device = format!("terminal-{:08x}", rand::random::<u32>());
    let mut body = json!({"phone": who.phone, "code": code, "device": device, "device_label": "Terminal"});
    if let Some(name) = who.name {
        body["name"] = json!(name);
    }
    let key = Uuid::now_v7().to_string();
    let asked = Call { key: Some(&key), ..Call::post("/v1/registrations/verify", body) };
    let answer = again(place, &asked).await?;
    let session = Session::from(read::<Grant>(answer)?);
    folder.keep_session(&session)?;
    Ok(session)
}

/// Who signs in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Who<'a> {
    pub(crate) phone: &'a str,
    pub(crate) name: Option<&'a str>,
}

/// Asks; if the answer was lost, once more under the same key.
async fn again(place: &Place, asked: &Call<'_>) -> Result<Value, Error> {
    match call(place, asked).await {
        Err(Error::Unreachable(_)) => Ok(call(place, asked).await?.data),
        other => Ok(other?.data),
    }
}

/// Whether the access token is about to expire.
pub(crate) fn is_stale(session: &Session) -> bool {
    let expires = session.expires_at.parse::<Timestamp>().unwrap_or(Timestamp::MIN);
    expires.duration_since(Timestamp::now()) <= EARLY
}

/// Gives the session a key for its refresh, unless it has one: then that refresh is under way still. Whether it is news.
pub(crate) fn give_key(session: &mut Session) -> bool {
    let new = session.refresh_key.is_none();
    session.refresh_key.get_or_insert_with(|| Uuid::now_v7().to_string());
    new
}

/// The session that comes after this one, which has a key. Only the server's own word ends a session: not that of a proxy in front of it.
pub(crate) async fn refreshed(place: &Place, session: &Session) -> Result<Session, Loss> {
    let body = json!({"refresh_token": session.refresh_token});
    let asked = Call { key: session.refresh_key.as_deref(), ..Call::post("/v1/sessions/refresh", body) };
    match again(place, &asked).await.and_then(read::<Grant>) {
        Ok(grant) => Ok(Session::from(grant)),
        Err(why) if is_over(&why) => Err(Loss::SignedOut),
        Err(why) => Err(why.into()),
    }
}

/// Whether the server has said that the session is over.
fn is_over(why: &Error) -> bool {
    matches!(why, Error::Refused { status: 401, code, .. } if code == "unauthenticated")
}

/// Ends the session at the server. One that is over already is fine.
pub(crate) async fn log_out(place: &Place, session: &Session) -> Result<(), Error> {
    let asked = Call { method: Method::DELETE, ..Call::get("/v1/sessions/current", &session.access_token) };
    match call(place, &asked).await {
        Err(why) if !is_over(&why) => Err(why),
        _ => Ok(()),
    }
}

/// The user of a phone number.
pub(crate) async fn look_up(place: &Place, token: &str, phone: &str) -> Result<UserId, Error> {
    #[derive(Deserialize)]
    struct Found {
        user: UserId,
    }
    let asked = Call::post("/v1/contacts/lookup", json!({"phone": phone})).by(token);
    match call(place, &asked).await {
        Ok(answer) => Ok(read::<Found>(answer.data)?.user),
        Err(Error::Refused { status: 404, code, .. }) => {
            Err(Error::Refused { status: 404, code, message: format!("nobody has the number {phone} here"), retry_after_ms: 0 })
        }
        Err(why) => Err(why),
    }
}

/// The name of a user; none was given, or nobody is there.
pub(crate) async fn name_of(place: &Place, token: &str, user: UserId) -> Option<String> {
    let answer = call(place, &Call::get(format!("/v1/users/{user}"), token)).await.ok()?;
    answer.data["name"].as_str().filter(|name| !name.is_empty()).map(str::to_owned)
}

/// One's own name; a new one, if given.
pub(crate) async fn own_name(place: &Place, token: &str, new: Option<&str>) -> Result<String, Error> {
    let asked = match new {
        Some(name) => Call { method: Method::PATCH, body: Some(json!({"name": name})), ..Call::get("/v1/me", token) },
        None => Call::get("/v1/me", token),
    };
    let answer = call(place, &asked).await?;
    Ok(answer.data["name"].as_str().unwrap_or_default().to_owned())
}

/// A device of one's own.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Device {
    pub(crate) device: String,
    #[serde(default)]
    pub(crate) label: String,
    #[serde(default)]
    pub(crate) current: bool,
    #[serde(default)]
    pub(crate) last_seen_at: String,
}

/// One's own devices.
pub(crate) async fn devices(place: &Place, token: &str) -> Result<Vec<Device>, Error> {
    read(call(place, &Call::get("/v1/devices", token)).await?.data)
}
