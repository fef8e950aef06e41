//! The document of the socket (AsyncAPI 3.0): every frame, in both directions, with its JSON Schema. It is written by hand;
//! `server/tests/asyncapi` holds it against the running server.

use std::sync::Arc;

use axum::http::header;
use axum::response::IntoResponse;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::node::Gateway;

const DOCUMENT: &str = include_str!("asyncapi.json");

pub(super) fn routes() -> OpenApiRouter<Arc<Gateway>> {
    OpenApiRouter::new().routes(routes!(show))
}

/// The document of the socket
#[utoipa::path(get, path = "/v1/asyncapi.json", tag = "Document",
    responses((status = 200, description = "AsyncAPI 3.0", body = serde_json::Value)))]
async fn show() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT)
}
