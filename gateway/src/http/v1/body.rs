//! What a request says: its JSON body, its query, the last part of its path. What is wrong is answered in the envelope, with the field.

use axum::body::{Bytes, to_bytes};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use protocol::codec::json;
use protocol::frame::ClientFrame;
use protocol::{DeviceName, ErrorCode};
use serde::de::DeserializeOwned;

use super::error::{ApiCode, ApiError};

/// Longest body, bytes.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// The JSON body.
#[derive(Debug)]
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        if !is_json(&parts.headers) {
            return Err(no_json());
        }
        read_json(&whole(body).await?).map(Self)
    }
}

/// The whole body, if it is not too long.
pub(super) async fn whole(body: axum::body::Body) -> Result<Bytes, ApiError> {
    let too_large = || ApiError::new(ApiCode::Frame(ErrorCode::TooLarge), "the body has at most 65536 bytes");
    to_bytes(body, BODY_BYTES_MAX).await.map_err(|why| {
        // the limit is the only thing that is wrong with a body whose connection stands
        if std::error::Error::source(&why).is_some_and(|why| why.to_string().contains("length limit")) {
            too_large()
        } else {
            ApiError::bad_request("the body ended early")
        }
    })
}

/// The body as it came: JSON that the codec of frames reads.
#[derive(Debug)]
pub struct FrameBody(pub Bytes);

impl FrameBody {
    /// The frame of this type that it is, by the same checks as on a socket.
    ///
    /// # Errors
    /// [`ApiError`] as the socket would answer.
    pub fn read(&self, kind: &str) -> Result<ClientFrame, ApiError> {
        json::decode_as(kind, &self.0).map_err(|why| ApiError::frame(why, None))
    }

    /// A field that the frame has not: the device that a request is about.
    ///
    /// # Errors
    /// [`ApiError`] when it is none.
    pub fn device(&self) -> Result<Option<DeviceName>, ApiError> {
        #[derive(serde::Deserialize)]
        struct Of {
            device: Option<DeviceName>,
        }
        read_json::<Of>(&self.0).map(|of| of.device)
    }
}

impl<S: Send + Sync> FromRequest<S> for FrameBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        if !is_json(&parts.headers) {
            return Err(no_json());
        }
        whole(body).await.map(Self)
    }
}

fn no_json() -> ApiError {
    ApiError::bad_field("Content-Type", "the body is JSON: Content-Type: application/json")
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

fn read_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    // serde would take a list for the fields in their order
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(ApiError::bad_request("the body is not a JSON object"));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let read = serde_path_to_error::deserialize(&mut json).map_err(|why| {
        let (path, inner) = (why.path().to_string(), why.inner());
        if !inner.is_data() {
            return ApiError::bad_request("the body is not JSON");
        }
        let said = inner.to_string();
        let said = said.split(" at line ").next().unwrap_or_default();
        match missing(said) {
            Some(field) => ApiError::bad_field(field.to_owned(), "is missing"),
            None => ApiError::bad_field(path, said.to_owned()),
        }
    })?;
    json.end().map_err(|_| ApiError::bad_request("the body is more than one JSON value"))?;
    Ok(read)
}

/// The field that serde says is missing.
fn missing(said: &str) -> Option<&str> {
    said.strip_prefix("missing field `")?.strip_suffix('`')
}

/// The query.
#[derive(Debug)]
pub struct Parameters<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let read = Query::try_from_uri(&parts.uri);
        read.map(|Query(read)| Self(read)).map_err(|_| ApiError::bad_request("the query has a parameter that is wrong"))
    }
}

/// The last part of the path, as the identifier it should be. Whatever is none names nothing: 404.
#[derive(Debug)]
pub struct Named<T>(pub T);

impl<T: std::str::FromStr, S: Send + Sync> FromRequestParts<S> for Named<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let nothing = || ApiError::not_found("there is no such account or device");
        let Path(text) = Path::<String>::from_request_parts(parts, state).await.map_err(|_| nothing())?;
        text.parse().map(Self).map_err(|_| nothing())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[expect(dead_code, reason = "only its errors are looked at")]
    struct Inside {
        deep: u8,
    }

    #[derive(Debug, serde::Deserialize)]
    #[expect(dead_code, reason = "only its errors are looked at")]
    struct Wanted {
        name: String,
        inside: Option<Inside>,
    }

    #[test]
    fn an_error_names_its_field() {
        let field = |field: &'static str, json: &str| {
            let error = serde_json::to_value(read_json::<Wanted>(json.as_bytes()).unwrap_err()).unwrap();
            assert_eq!((error["code"].as_str(), error["field"].as_str()), (Some("bad_field"), Some(field)), "{json}: {error}");
            assert!(!error["message"].as_str().unwrap().contains("line"), "{error}");
        };
        field("name", "{}");
        field("name", r#"{"name":7}"#);
        field("inside.deep", r#"{"name":"a","inside":{"deep":-1}}"#);
        assert!(read_json::<Wanted>(br#"{"name":"a","other":1}"#).is_ok(), "unknown fields are ignored");
        let deep = "[".repeat(100_000);
        for bad in ["", "null", "[]", "[\"a\"]", "7", "{", "{\"name\":\"a\"}{}", "{\"name\":\"\\ud800\"}", deep.as_str()] {
            let error = serde_json::to_value(read_json::<Wanted>(bad.as_bytes()).unwrap_err()).unwrap();
            assert_eq!(error["code"], "bad_request", "{bad}");
        }
    }
}
