//! `Idempotency-Key` on a POST: the same key, route and caller within 24 hours get the same answer, and another body with it a conflict. Good answers
//! are kept; after an error the request may be made again. The work goes on when the client has gone, so that its answer is there when it comes back.

use std::collections::HashSet;
use std::sync::Arc;

use accounts::Accounts;
use accounts::idempotency::{ANSWER_BYTES_MAX, Answer, Earlier, Request as Keyed, is_key};
use accounts::secret::Tag;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use parking_lot::Mutex;
use serde::Deserialize;

use super::bearer::Bearer;
use super::body::whole;
use super::error::{ApiCode, ApiError};
use super::reply::Unkept;
use crate::node::{Gateway, now_ms};

const HEADER: &str = "idempotency-key";
/// Tells an answer that was given before.
const REPLAYED: &str = "idempotency-replayed";

/// The key of a request, for a handler that gives the same answer again by itself.
#[derive(Debug, Clone)]
pub struct IdempotencyKey(pub Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        Ok(Self(key(&parts.headers)?.map(str::to_owned)))
    }
}

fn key(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let bad = || ApiError::bad_field("Idempotency-Key", "a key is 1 to 64 visible ASCII characters, once");
    let mut values = headers.get_all(HEADER).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().ok().filter(|text| is_key(text)).map(Some).ok_or_else(bad),
        (Some(_), Some(_)) => Err(bad()),
    }
}

/// What the layer stands on.
#[derive(Clone)]
pub(super) struct Layer {
    node: Arc<Gateway>,
    under_way: Arc<Mutex<HashSet<Tag>>>,
}

impl Layer {
    pub(super) fn new(node: &Arc<Gateway>) -> Self {
        Self { node: Arc::clone(node), under_way: Arc::default() }
    }
}

/// A request that is being worked on; another with the same key is told to come again. As many as there are connections, at most.
struct Place {
    key: Tag,
    under_way: Arc<Mutex<HashSet<Tag>>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.under_way.lock().remove(&self.key);
    }
}

pub(super) async fn layer(State(layer): State<Layer>, request: Request, next: Next) -> Response {
    let asks = request.method() == Method::POST && request.headers().contains_key(HEADER);
    // a cluster has no accounts yet, and no place to keep answers; what it takes by POST has an id of its own
    let Some(accounts) = layer.node.accounts.get().filter(|_| asks).cloned() else { return next.run(request).await };
    match once(&layer, &accounts, request, next).await {
        Ok(response) => response,
        Err(refused) => refused.into_response(),
    }
}

async fn once(layer: &Layer, accounts: &Arc<Accounts>, request: Request, next: Next) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let key = key(&parts.headers)?.unwrap_or_default().to_owned();
    let body = whole(body).await?;
    // from here on it goes on without the client
    let (layer, accounts) = (layer.clone(), Arc::clone(accounts));
    let work = tokio::spawn(async move { answer(&layer, &accounts, (parts, key, body), next).await });
    work.await.unwrap_or_else(|_| Err(ApiError::unavailable("the request came to no end")))
}

async fn answer(
    layer: &Layer,
    accounts: &Accounts,
    (parts, key, body): (Parts, String, Bytes),
    next: Next,
) -> Result<Response, ApiError> {
    let caller = Bearer::of(&parts.headers, &layer.node).map_or_else(|| stranger(&body), |bearer| bearer.name());
    let keyed = accounts.request(&caller, (parts.uri.path(), &key), &body);
    if !layer.under_way.lock().insert(keyed.key) {
        let again = ApiError::new(ApiCode::Conflict, "the same request is under way");
        return Err(again.retry_after(1000));
    }
    let _place = Place { key: keyed.key, under_way: Arc::clone(&layer.under_way) };
    match accounts.earlier(&keyed, now_ms()).await? {
        Earlier::Other => Err(ApiError::new(ApiCode::IdempotencyConflict, "this key came with another body before")),
        Earlier::Same(Answer { status, body: Some(body) }) => Ok(replayed(status, body)),
        Earlier::Same(_) | Earlier::Nothing => {
            let response = next.run(Request::from_parts(parts, Body::from(body))).await;
            Ok(keep(accounts, &keyed, response).await)
        }
    }
}

/// Keeps a good answer and passes it on. One that cannot be kept is passed on all the same: it has happened.
async fn keep(accounts: &Accounts, keyed: &Keyed, response: Response) -> Response {
    if !response.status().is_success() {
        return response;
    }
    let unkept = response.extensions().get::<Unkept>().is_some();
    let (parts, body) = response.into_parts();
    // an answer of this API is made in memory, and small
    let bytes = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let short = bytes.len() <= ANSWER_BYTES_MAX;
    let answer = Answer { status: parts.status.as_u16(), body: (short && !unkept).then(|| bytes.to_vec()) };
    if let Err(why) = accounts.keep(keyed, &answer, now_ms()).await {
        tracing::error!(%why, "an answer is not kept for its idempotency key");
    }
    Response::from_parts(parts, Body::from(bytes))
}

fn replayed(status: u16, body: Vec<u8>) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let headers = [
        (header::CONTENT_TYPE.as_str(), HeaderValue::from_static("application/json")),
        (REPLAYED, HeaderValue::from_static("true")),
    ];
    (status, headers, Bytes::from(body)).into_response()
}

/// Who has no token is the number or the session it speaks of.
fn stranger(body: &[u8]) -> String {
    #[derive(Default, Deserialize)]
    struct Of<'a> {
        phone: Option<&'a str>,
        refresh_token: Option<&'a str>,
    }
    let of: Of<'_> = serde_json::from_slice(body).unwrap_or_default();
    format!("number {} session {}", of.phone.unwrap_or_default(), of.refresh_token.unwrap_or_default())
}
