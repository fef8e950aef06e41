//! The HTTP API under `/v1`: one file for each resource, in the order a person meets them. `docs/protocol.md` is its contract.
//!
//! **To add a resource**, make a file with its request and answer types (`serde` and [`utoipa::ToSchema`]), its handlers, and
//! `pub(super) fn routes() -> OpenApiRouter<Arc<Gateway>>`, and merge that in [`routes`]. A route is only ever registered by
//! `routes!(handler)`, so that it cannot be missing from the document. In a handler:
//!
//! - `State<Arc<Gateway>>` is everything: ports, sessions, limits, and by [`accounts()`] the accounts.
//! - [`Bearer`] is who calls, by an access token that is good now. It has been counted against the user's rate.
//! - [`FrameBody`] is a body that is a frame without its `type`, read by the codec of the socket.
//! - [`Body<T>`](Body) is the JSON body, of at most [`BODY_BYTES_MAX`]; [`Parameters<T>`](Parameters) the query; [`Named`] the last part of the path.
//! - The answer is `Result<Reply<T>, ApiError>`: [`reply::ok`] with the data, or an error of the closed list ([`error`]).
//! - [`paging::Paging`] and [`paging::Paged`] are pages with a cursor.
//! - `#[utoipa::path(…)]` names the answer as `Success<T>` and the errors by [`error::Errors`] (and [`error::NeedsToken`]).
//!
//! **Around every handler**, from the outside: [`guard`] counts, times, refuses addresses that ask too often and tokens in the URL;
//! [`idempotency`] gives a POST with an `Idempotency-Key` the answer it had, if it had one (of accounts: messages have ids of their own, and what else
//! is posted about them may come twice). A handler whose answer must not be kept says [`Reply::unkept`] and gives the same answer again by itself.

pub mod error;
pub mod reply;
pub mod paging;
mod guard;
mod bearer;
mod body;
mod idempotency;
mod registrations;
mod sessions;
mod devices;
mod me;
mod users;
mod contacts;
mod conversations;
mod messages;
mod received;
mod read;
mod typing;
mod watch;
mod events;
pub mod openapi;
mod asyncapi;

use std::sync::Arc;

use accounts::Accounts;
use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::any;
use utoipa_axum::router::OpenApiRouter;

pub use bearer::Bearer;
pub use body::{BODY_BYTES_MAX, Body, FrameBody, Named, Parameters};
pub use error::ApiError;
pub use idempotency::IdempotencyKey;
pub use reply::Reply;

use crate::node::Gateway;

/// Every resource, with its part of the document; `keyed` around those whose POST takes an `Idempotency-Key`.
fn routes(keyed: impl FnOnce(OpenApiRouter<Arc<Gateway>>) -> OpenApiRouter<Arc<Gateway>>) -> OpenApiRouter<Arc<Gateway>> {
    let accounts = OpenApiRouter::new()
        .merge(registrations::routes())
        .merge(sessions::routes())
        .merge(devices::routes())
        .merge(me::routes())
        .merge(users::routes())
        .merge(contacts::routes());
    OpenApiRouter::with_openapi(openapi::frame())
        .merge(keyed(accounts))
        .merge(conversations::routes())
        .merge(messages::routes())
        .merge(received::routes())
        .merge(read::routes())
        .merge(typing::routes())
        .merge(watch::routes())
        .merge(events::routes())
        .merge(openapi::routes())
        .merge(asyncapi::routes())
}

/// The API of one gateway.
pub(super) fn router(node: &Arc<Gateway>) -> Router<Arc<Gateway>> {
    let idempotency = from_fn_with_state(idempotency::Layer::new(node), idempotency::layer);
    let (mut routes, document) = routes(|accounts| accounts.layer(idempotency)).split_for_parts();
    for unknown in ["/v1", "/v1/", "/v1/{*unknown}"] {
        routes = routes.route(unknown, any(async || ApiError::not_found("there is no such path")));
    }
    routes
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .layer(from_fn_with_state(Arc::clone(node), guard::layer))
        .layer(openapi::Document::layer(&document))
}

/// The accounts of this process.
///
/// # Errors
/// [`ApiError::not_here`] in a cluster, which has none yet.
pub fn accounts(node: &Gateway) -> Result<&Arc<Accounts>, ApiError> {
    node.accounts.get().ok_or_else(ApiError::not_here)
}

/// A time as the API writes it: RFC 3339, UTC, milliseconds.
pub fn time(ms: u64) -> String {
    let at = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()).unwrap_or(jiff::Timestamp::MAX);
    format!("{at:.3}")
}

#[cfg(test)]
mod tests {
    /// A route that is not registered by `routes!` would not be in the document.
    #[test]
    fn every_route_is_in_the_document() {
        let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/v1");
        let files = std::fs::read_dir(here).unwrap().map(|file| file.unwrap().path());
        let lines = files.flat_map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            text.lines().map(|line| (path.clone(), line.trim().to_owned())).collect::<Vec<_>>()
        });
        let by_hand: Vec<_> = lines.filter(|(_, line)| line.contains(".route(") && !line.contains("line.contains")).collect();
        assert_eq!(by_hand.len(), 1, "only the answer to unknown paths: {by_hand:#?}");
    }
}
