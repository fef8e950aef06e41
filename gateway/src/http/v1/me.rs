//! What a user knows of itself, and says of itself.

use std::sync::Arc;

use accounts::Accounts;
use accounts::profile::{self, Profile};
use axum::extract::State;
use protocol::UserId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::bearer::Bearer;
use super::body::Body;
use super::error::{ApiError, Errors, MayBeMissing, NeedsToken};
use super::reply::{Reply, Success, ok};
use super::{accounts, time};
use crate::node::Gateway;

pub(super) fn routes() -> OpenApiRouter<Arc<Gateway>> {
    OpenApiRouter::new().routes(routes!(show, edit))
}

/// Your account.
#[derive(Serialize, ToSchema)]
struct Me {
    /// Your id.
    #[schema(value_type = String, example = "4503599627370497")]
    user: UserId,
    /// Your number. Nobody else is told.
    #[schema(example = "+4915112345678")]
    phone: String,
    /// Display name; empty: none was given.
    name: String,
    /// About text; may be empty.
    about: String,
    /// When the account was made.
    #[schema(format = DateTime)]
    created_at: String,
}

/// What to change.
#[derive(Deserialize, ToSchema)]
struct Edit {
    /// Display name; absent: as it is.
    #[schema(example = "Ann", min_length = 1, max_length = 64)]
    name: Option<String>,
    /// About text; absent: as it is.
    #[schema(example = "At the lake", max_length = 140)]
    about: Option<String>,
}

async fn whole(accounts: &Accounts, profile: Profile) -> Result<Reply<Me>, ApiError> {
    let (phone, created_ms) = accounts.phone(profile.user).await?;
    let Profile { user, name, about } = profile;
    Ok(ok(Me { user, phone: phone.as_str().to_owned(), name, about, created_at: time(created_ms) }))
}

/// Show your account
#[utoipa::path(get, path = "/v1/me", tag = "Accounts", security(("bearer" = [])),
    responses((status = 200, description = "Your account.", body = Success<Me>), NeedsToken, MayBeMissing, Errors))]
async fn show(State(node): State<Arc<Gateway>>, bearer: Bearer) -> Result<Reply<Me>, ApiError> {
    let accounts = accounts(&node)?;
    whole(accounts, accounts.profile(bearer.user).await?).await
}

/// Change your name or about text
///
/// Text is kept as it is given, but for control characters, which are refused: whoever shows it must escape it.
#[utoipa::path(patch, path = "/v1/me", tag = "Accounts", security(("bearer" = [])), request_body = Edit,
    responses((status = 200, description = "Your account.", body = Success<Me>), NeedsToken, MayBeMissing, Errors))]
async fn edit(State(node): State<Arc<Gateway>>, bearer: Bearer, Body(edit): Body<Edit>) -> Result<Reply<Me>, ApiError> {
    let accounts = accounts(&node)?;
    let name = edit.name.as_deref().map(profile::name).transpose().map_err(|why| ApiError::bad_text("name", why))?;
    let about = edit.about.as_deref().map(profile::about).transpose().map_err(|why| ApiError::bad_text("about", why))?;
    whole(accounts, accounts.edit(bearer.user, name, about).await?).await
}
