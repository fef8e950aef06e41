//! Who calls: `Authorization: Bearer <access token>`.

use std::sync::Arc;

use accounts::Sid;
use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use protocol::{DeviceName, UserId};

use super::error::ApiError;
use crate::handshake::bearer_in;
use crate::node::{Gateway, now_ms};
use crate::token::Claims;

/// Who calls, by a token that is good now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer {
    /// The user.
    pub user: UserId,
    /// The only device the token is good for; none: any.
    pub device: Option<DeviceName>,
    /// The session of the account; none: a tool made the token.
    pub sid: Option<Sid>,
    /// All that the token says.
    pub(super) claims: Box<Claims>,
}

impl Bearer {
    /// The caller of a request, if its token is good.
    pub(super) fn of(headers: &HeaderMap, node: &Gateway) -> Option<Self> {
        let claims = node.tokens.verify(bearer_in(headers)?).ok()?;
        Some(Self { user: claims.sub, device: claims.device.clone(), sid: claims.sid, claims: Box::new(claims) })
    }

    /// The device that the caller speaks for, as in `hello`: the token's, or the one that is named, or the nameless one.
    ///
    /// # Errors
    /// [`ApiError`] when the token is for another one.
    pub(super) fn speaks_for(&self, named: Option<DeviceName>) -> Result<DeviceName, ApiError> {
        match (&self.device, named) {
            (Some(bound), Some(named)) if *bound != named => {
                Err(ApiError::forbidden("device", "the token is for another device"))
            }
            (Some(bound), _) => Ok(bound.clone()),
            (None, named) => Ok(named.unwrap_or_default()),
        }
    }

    /// The caller as a text, for telling callers apart.
    pub(super) fn name(&self) -> String {
        let device = self.device.as_ref().map(DeviceName::as_str).unwrap_or_default();
        format!("user {} {device}", self.user)
    }
}

impl FromRequestParts<Arc<Gateway>> for Bearer {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, node: &Arc<Gateway>) -> Result<Self, ApiError> {
        let bearer = Self::of(&parts.headers, node).ok_or_else(ApiError::unauthenticated)?;
        node.limiter.request_of(bearer.user).map_err(ApiError::rate)?;
        if let (Some(sid), Some(accounts)) = (bearer.sid, node.accounts.get()) {
            accounts.seen(sid, now_ms());
        }
        Ok(bearer)
    }
}
