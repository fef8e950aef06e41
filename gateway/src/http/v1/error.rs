//! What clients see when something is wrong: a closed list of codes, each with its HTTP status. Internal text never leaves.

use std::borrow::Cow;

use accounts::AccountsError;
use accounts::profile::BadText;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use protocol::ErrorCode;
use protocol::frame::FrameError;
use serde::{Serialize, Serializer};
use utoipa::openapi::schema::{ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoResponses, PartialSchema, ToSchema};

use crate::handshake::Refusal;

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiCode {
    /// One of the socket's codes, with the same meaning.
    Frame(ErrorCode),
    /// No token, or one that is not good.
    Unauthenticated,
    /// Nothing of that name for this caller.
    NotFound,
    /// It contradicts what is there, or the same request is under way.
    Conflict,
    /// The idempotency key came with another body before.
    IdempotencyConflict,
    /// Not a phone number.
    BadPhone,
    /// The code is wrong, expired, used up, or was never asked for.
    BadCode,
}

impl ApiCode {
    const OWN: [Self; 6] =
        [Self::Unauthenticated, Self::NotFound, Self::Conflict, Self::IdempotencyConflict, Self::BadPhone, Self::BadCode];

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Frame(code) => code.name(),
            Self::Unauthenticated => "unauthenticated",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::IdempotencyConflict => "idempotency_conflict",
            Self::BadPhone => "bad_phone",
            Self::BadCode => "bad_code",
        }
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Conflict | Self::IdempotencyConflict | Self::Frame(ErrorCode::IdReused | ErrorCode::Fenced) => {
                StatusCode::CONFLICT
            }
            Self::Frame(ErrorCode::Forbidden) => StatusCode::FORBIDDEN,
            Self::Frame(ErrorCode::TooLarge) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Frame(ErrorCode::Rate | ErrorCode::Busy) => StatusCode::TOO_MANY_REQUESTS,
            Self::Frame(ErrorCode::Unavailable | ErrorCode::OutcomeUnknown) => StatusCode::SERVICE_UNAVAILABLE,
            Self::BadPhone | Self::BadCode | Self::Frame(_) => StatusCode::BAD_REQUEST,
        }
    }
}

impl From<ErrorCode> for ApiCode {
    fn from(code: ErrorCode) -> Self {
        Self::Frame(code)
    }
}

impl Serialize for ApiCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl PartialSchema for ApiCode {
    fn schema() -> RefOr<Schema> {
        let all = ErrorCode::ALL.into_iter().map(Self::Frame).chain(Self::OWN);
        let object = ObjectBuilder::new().schema_type(SchemaType::Type(Type::String));
        object.description(Some("The closed list of error codes.")).enum_values(Some(all.map(Self::name))).into()
    }
}

impl ToSchema for ApiCode {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("ErrorCode")
    }
}

/// A refused request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Error)]
pub struct ApiError {
    /// For programs.
    code: ApiCode,
    /// For people who write programs.
    message: Cow<'static, str>,
    /// The field at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    field: Option<Cow<'static, str>>,
    /// When it may be tried again, milliseconds from now.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    retry_after_ms: Option<u64>,
    #[serde(skip)]
    #[schema(ignore)]
    status: StatusCode,
}

/// The envelope of a refused request.
#[derive(Debug, Serialize, ToSchema)]
pub struct Failure {
    /// Always false.
    success: bool,
    /// Why.
    error: ApiError,
}

/// Errors every operation can answer with.
#[derive(IntoResponses)]
pub enum Errors {
    /// The request is wrong; `field` says where.
    #[response(status = 400)]
    Bad(Failure),
    /// It contradicts what is there.
    #[response(status = 409)]
    Conflict(Failure),
    /// The body is over 64 KiB.
    #[response(status = 413)]
    TooLarge(Failure),
    /// Too many; `retry_after_ms` and `Retry-After` say when again.
    #[response(status = 429)]
    Rate(Failure),
    /// Not in this deployment.
    #[response(status = 501)]
    NotHere(Failure),
    /// Not now.
    #[response(status = 503)]
    Unavailable(Failure),
}

/// Errors of operations that need a token.
#[derive(IntoResponses)]
pub enum NeedsToken {
    /// No token, or one that is not good.
    #[response(status = 401)]
    Unauthenticated(Failure),
}

/// Errors of operations on something that may be another's.
#[derive(IntoResponses)]
pub enum MayBeForbidden {
    /// Not yours.
    #[response(status = 403)]
    Forbidden(Failure),
}

/// Errors of operations on something that may not be there.
#[derive(IntoResponses)]
pub enum MayBeMissing {
    /// Nothing of that name for this caller.
    #[response(status = 404)]
    NotFound(Failure),
}

impl ApiError {
    /// A code and what it means here.
    pub fn new(code: ApiCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), field: None, retry_after_ms: None, status: code.status() }
    }

    /// The request as a whole cannot be read.
    pub fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ApiCode::Frame(ErrorCode::BadRequest), message)
    }

    /// A field is missing or wrong.
    pub fn bad_field(field: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) -> Self {
        Self { field: Some(field.into()), ..Self::new(ApiCode::Frame(ErrorCode::BadField), message) }
    }

    /// A text that is not taken.
    pub fn bad_text(field: &'static str, why: BadText) -> Self {
        Self::bad_field(field, why.to_string())
    }

    /// No good token.
    pub fn unauthenticated() -> Self {
        Self::new(ApiCode::Unauthenticated, "the token is missing or not valid")
    }

    /// Not the caller's.
    pub fn forbidden(field: &'static str, message: &'static str) -> Self {
        Self { field: Some(field.into()), ..Self::new(ApiCode::Frame(ErrorCode::Forbidden), message) }
    }

    /// What a frame would be answered.
    pub fn frame(why: FrameError, retry_after_ms: Option<u64>) -> Self {
        let field = why.field.map(Cow::from);
        Self { field, retry_after_ms, ..Self::new(ApiCode::Frame(why.code), why.message) }
    }

    /// There is no room for one more stream.
    pub(crate) fn no_room(why: &Refusal) -> Self {
        let code = if why.status == StatusCode::TOO_MANY_REQUESTS { ErrorCode::Rate } else { ErrorCode::Unavailable };
        Self { retry_after_ms: Some(1000), ..Self::new(ApiCode::Frame(code), why.why) }
    }

    /// Nothing of that name.
    pub fn not_found(message: &'static str) -> Self {
        Self::new(ApiCode::NotFound, message)
    }

    /// The path is there, the method is not.
    pub fn method_not_allowed() -> Self {
        Self { status: StatusCode::METHOD_NOT_ALLOWED, ..Self::bad_request("this path does not take this method") }
    }

    /// Too many.
    pub fn rate(retry_after_ms: u64) -> Self {
        Self { retry_after_ms: Some(retry_after_ms), ..Self::new(ApiCode::Frame(ErrorCode::Rate), "too many requests") }
    }

    /// The same, to be tried again after so many milliseconds.
    pub fn retry_after(self, ms: u64) -> Self {
        Self { retry_after_ms: Some(ms), ..self }
    }

    /// Not now.
    pub fn unavailable(message: &'static str) -> Self {
        Self { retry_after_ms: Some(1000), ..Self::new(ApiCode::Frame(ErrorCode::Unavailable), message) }
    }

    /// This process has no accounts.
    pub fn not_here() -> Self {
        let message = "this deployment has no accounts: tokens are made by its operator";
        Self { status: StatusCode::NOT_IMPLEMENTED, ..Self::new(ApiCode::Frame(ErrorCode::Unavailable), message) }
    }
}

impl From<AccountsError> for ApiError {
    fn from(why: AccountsError) -> Self {
        match why {
            AccountsError::BadCode => Self::new(ApiCode::BadCode, "the code is wrong, expired, used up, or was never asked for"),
            AccountsError::Unauthenticated => Self::unauthenticated(),
            AccountsError::NotFound => Self::not_found("there is no such account or device"),
            AccountsError::Rate { retry_after_ms } => Self::rate(retry_after_ms),
            AccountsError::Busy => Self::unavailable("too many codes are on their way"),
            AccountsError::NoDelivery => {
                Self { retry_after_ms: None, ..Self::unavailable("no delivery of codes is set up here: ask the operator") }
            }
            AccountsError::File { .. } | AccountsError::Unavailable(_) => {
                tracing::error!(%why, "a request is refused");
                Self::unavailable("accounts cannot be reached now")
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, retry_after_ms) = (self.status, self.retry_after_ms);
        let mut response = (status, Json(Failure { success: false, error: self })).into_response();
        if let Some(ms) = retry_after_ms {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000)));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
