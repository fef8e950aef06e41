//! Good answers, in their envelope.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// The envelope of a good answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct Success<T> {
    /// Always true.
    success: bool,
    /// What was asked for.
    data: T,
}

/// Done, and there is nothing to say.
#[derive(Debug, Serialize, ToSchema)]
pub struct Done {}

/// A good answer.
#[derive(Debug)]
pub struct Reply<T> {
    status: StatusCode,
    data: T,
    unkept: bool,
}

/// Marks a response that the idempotency layer must not keep.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unkept;

/// 200.
pub const fn ok<T>(data: T) -> Reply<T> {
    Reply { status: StatusCode::OK, data, unkept: false }
}

/// 202.
pub const fn accepted<T>(data: T) -> Reply<T> {
    Reply { status: StatusCode::ACCEPTED, data, unkept: false }
}

impl<T> Reply<T> {
    /// It holds tokens, so it is not kept for its idempotency key: the handler gives the same answer again by itself.
    pub fn unkept(self) -> Self {
        Self { unkept: true, ..self }
    }
}

impl<T: Serialize> IntoResponse for Reply<T> {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(Success { success: true, data: self.data })).into_response();
        if self.unkept {
            response.extensions_mut().insert(Unkept);
        }
        response
    }
}
