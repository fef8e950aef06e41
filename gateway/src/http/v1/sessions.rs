//! Sessions: a refresh token is turned into the next, and a device logs itself out.

use std::sync::Arc;

use accounts::Grant;
use accounts::session::Why;
use accounts::store::sessions::Which;
use axum::extract::State;
use protocol::{DeviceName, UserId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::bearer::Bearer;
use super::body::Body;
use super::error::{ApiError, Errors, MayBeMissing, NeedsToken};
use super::idempotency::IdempotencyKey;
use super::reply::{Done, Reply, Success, ok};
use super::{accounts, time};
use crate::node::{Gateway, now_ms};
use crate::token::{Claims, LIFETIME_S};

pub(super) fn routes() -> OpenApiRouter<Arc<Gateway>> {
    OpenApiRouter::new().routes(routes!(refresh)).routes(routes!(log_out))
}

/// Tokens of a device.
#[derive(Serialize, ToSchema)]
pub(super) struct Session {
    /// The user.
    #[schema(value_type = String, example = "4503599627370497")]
    user: UserId,
    /// The device the tokens are good for.
    #[schema(value_type = String, example = "phone-1")]
    device: DeviceName,
    /// Whether the account was made just now.
    new: bool,
    /// For `Authorization: Bearer`, and for `hello`.
    access_token: String,
    /// When it expires.
    #[schema(format = DateTime)]
    expires_at: String,
    /// Good once, for the next pair of tokens.
    refresh_token: String,
    /// When it expires.
    #[schema(format = DateTime)]
    refresh_expires_at: String,
}

impl Session {
    /// The same grant makes the same tokens.
    pub(super) fn new(node: &Gateway, grant: Grant) -> Result<Self, ApiError> {
        let claims = Claims {
            phone: Some(grant.phone.as_str().to_owned()),
            sid: Some(grant.sid),
            ..Claims::new(grant.user, Some(grant.device.clone()), grant.issued_ms / 1000)
        };
        let access_token = node.tokens.sign(&claims).map_err(|why| {
            tracing::error!(%why, "a token cannot be signed");
            ApiError::unavailable("tokens cannot be made now")
        })?;
        Ok(Self {
            user: grant.user,
            device: grant.device,
            new: grant.new,
            access_token,
            expires_at: time((claims.iat + LIFETIME_S) * 1000),
            refresh_token: grant.refresh_token,
            refresh_expires_at: time(grant.refresh_until_ms),
        })
    }
}

/// A refresh token.
#[derive(Deserialize, ToSchema)]
struct Refresh {
    /// The newest one of the session.
    refresh_token: String,
}

/// Get new tokens
///
/// The refresh token is used up. If a used one comes again, somebody has a copy, and the session ends; unless it is the same request again, with the
/// same `Idempotency-Key`, within 24 hours, and what it was given was not used: then the answer was lost, and is given again.
#[utoipa::path(post, path = "/v1/sessions/refresh", tag = "Accounts", request_body = Refresh,
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 64 visible ASCII characters")),
    responses((status = 200, description = "New tokens.", body = Success<Session>), NeedsToken, Errors))]
async fn refresh(
    State(node): State<Arc<Gateway>>,
    IdempotencyKey(key): IdempotencyKey,
    Body(sent): Body<Refresh>,
) -> Result<Reply<Session>, ApiError> {
    let grant = accounts(&node)?.refresh(&sent.refresh_token, key.as_deref(), now_ms()).await?;
    Ok(ok(Session::new(&node, grant)?).unkept())
}

/// Log this device out
///
/// Its tokens are refused from now on, and its sockets close with 4401.
#[utoipa::path(delete, path = "/v1/sessions/current", tag = "Accounts", security(("bearer" = [])),
    responses((status = 200, description = "The session has ended.", body = Success<Done>), NeedsToken, MayBeMissing, Errors))]
async fn log_out(State(node): State<Arc<Gateway>>, bearer: Bearer) -> Result<Reply<Done>, ApiError> {
    let accounts = accounts(&node)?;
    let sid = bearer.sid.ok_or_else(|| ApiError::not_found("this token belongs to no session: it ends when it expires"))?;
    accounts.end(Which::Session(sid), Why::LogOut, now_ms()).await?;
    Ok(ok(Done {}))
}
