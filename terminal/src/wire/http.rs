//! One request, one connection: the server answers one request a connection.

use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::http::{Method, Request, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use crate::error::Error;
use crate::wire::Place;

/// An answer must be there by then.
const DEADLINE: Duration = Duration::from_secs(20);
/// Longest answer that is read, bytes.
const ANSWER_MAX: usize = 1 << 20;

/// What is asked.
#[derive(Debug, Clone)]
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) token: Option<&'a str>,
    /// Under this key a repetition gets the same answer.
    pub(crate) key: Option<&'a str>,
    pub(crate) body: Option<Value>,
}

impl<'a> Call<'a> {
    pub(crate) fn get(path: impl Into<String>, token: &'a str) -> Self {
        Self { method: Method::GET, path: path.into(), token: Some(token), key: None, body: None }
    }

    pub(crate) fn post(path: impl Into<String>, body: Value) -> Self {
        Self { method: Method::POST, path: path.into(), token: None, key: None, body: Some(body) }
    }

    pub(crate) fn by(self, token: &'a str) -> Self {
        Self { token: Some(token), ..self }
    }
}

/// An answer: its `data`, and whether this machine gave it.
pub(crate) struct Answer {
    pub(crate) data: Value,
    pub(crate) loopback: bool,
}

/// Asks.
pub(crate) async fn call(place: &Place, call: &Call<'_>) -> Result<Answer, Error> {
    let asked = Box::pin(ask(place, call));
    tokio::time::timeout(DEADLINE, asked).await.map_err(|_| Error::Unreachable("no answer in time".into()))?
}

async fn ask(place: &Place, call: &Call<'_>) -> Result<Answer, Error> {
    let broken = |why: hyper::Error| Error::Unreachable(format!("{}: {why}", place.authority()));
    let (wire, loopback) = place.dial().await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(wire)).await.map_err(broken)?;
    let mut request =
        Request::builder().method(call.method.clone()).uri(place.path(&call.path)).header(header::HOST, place.authority());
    request = request.header(header::CONNECTION, "close");
    if let Some(token) = call.token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    if let Some(key) = call.key {
        request = request.header("Idempotency-Key", key);
    }
    let body = call.body.as_ref().map(Value::to_string).unwrap_or_default();
    if call.body.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    let request = request.body(Full::new(Bytes::from(body))).map_err(|why| Error::Unreachable(why.to_string()))?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(broken)?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
        let body = body.map_err(|why| Error::Unreachable(format!("{}: {why}", place.authority())))?.to_bytes();
        Ok((status, body))
    };
    tokio::pin!(connection, exchange);
    let (status, body) = tokio::select! {
        biased;
        done = &mut exchange => done?,
        ended = &mut connection => {
            ended.map_err(broken)?;
            exchange.await?
        }
    };
    read(status, &body).map(|data| Answer { data, loopback })
}

/// Reads the envelope.
fn read(status: u16, body: &[u8]) -> Result<Value, Error> {
    let mut envelope: Value = serde_json::from_slice(body).unwrap_or_default();
    if envelope["success"] == true {
        return Ok(envelope["data"].take());
    }
    let error = &envelope["error"];
    let code = error["code"].as_str().unwrap_or("unknown").to_owned();
    let message = error["message"].as_str().map_or_else(|| format!("HTTP {status}"), str::to_owned);
    Err(Error::Refused { status, code, message, retry_after_ms: error["retry_after_ms"].as_u64().unwrap_or(0) })
}
