//! The document of the API (OpenAPI 3.1), made of the handlers and their types, and the page to try it. The page is in the binary and asks nobody
//! else for anything.

use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::http::header;
use axum::response::IntoResponse;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::http::page;
use crate::node::Gateway;

/// What stands around the operations.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Switchboard",
        description = "Accounts and messages over HTTP. Every answer is an envelope: `{\"success\":true,\"data\":…}` or `{\"success\":false,\"error\":{\"code\":…}}`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    tags((name = "Accounts", description = "Numbers, codes, sessions, devices, profiles"), (name = "Messages", description = "What the socket does, by requests and a stream of server-sent events"), (name = "Document", description = "This document, and that of the socket")),
    components(schemas(super::error::Failure)),
    modifiers(&Bearer)
)]
struct Frame;

struct Bearer;

impl utoipa::Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

pub(super) fn frame() -> utoipa::openapi::OpenApi {
    Frame::openapi()
}

/// The document of everything under `/v1`.
pub fn document() -> utoipa::openapi::OpenApi {
    super::routes(std::convert::identity).to_openapi()
}

pub(super) fn routes() -> OpenApiRouter<Arc<Gateway>> {
    OpenApiRouter::new().routes(routes!(show))
}

/// The document as it is sent.
#[derive(Debug, Clone)]
pub(super) struct Document(Bytes);

impl Document {
    pub(super) fn layer(document: &utoipa::openapi::OpenApi) -> Extension<Self> {
        Extension(Self(serde_json::to_vec(document).unwrap_or_default().into()))
    }
}

/// This document
#[utoipa::path(get, path = "/v1/openapi.json", tag = "Document",
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value)))]
async fn show(Extension(Document(document)): Extension<Document>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], document)
}

pub(in crate::http) async fn docs_html() -> impl IntoResponse {
    page::file("text/html; charset=utf-8", include_bytes!("../../page/docs.html"))
}

pub(in crate::http) async fn docs_script() -> impl IntoResponse {
    page::file("text/javascript; charset=utf-8", include_bytes!("../../page/docs.js"))
}

pub(in crate::http) async fn docs_style() -> impl IntoResponse {
    page::file("text/css; charset=utf-8", include_bytes!("../../page/docs.css"))
}
