//! Users as others see them.

use std::sync::Arc;

use accounts::profile::Profile;
use axum::extract::State;
use protocol::UserId;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::accounts;
use super::bearer::Bearer;
use super::body::Named;
use super::error::{ApiError, Errors, MayBeMissing, NeedsToken};
use super::reply::{Reply, Success, ok};
use crate::node::Gateway;

pub(super) fn routes() -> OpenApiRouter<Arc<Gateway>> {
    OpenApiRouter::new().routes(routes!(show))
}

/// A user.
#[derive(Serialize, ToSchema)]
pub(super) struct User {
    /// The id.
    #[schema(value_type = String, example = "4503599627370497")]
    user: UserId,
    /// Display name; empty: none was given.
    name: String,
    /// About text; may be empty.
    about: String,
}

impl From<Profile> for User {
    fn from(Profile { user, name, about }: Profile) -> Self {
        Self { user, name, about }
    }
}

/// Show a user
#[utoipa::path(get, path = "/v1/users/{id}", tag = "Accounts", security(("bearer" = [])),
    params(("id" = String, Path, description = "The user's id")),
    responses((status = 200, description = "The user.", body = Success<User>), NeedsToken, MayBeMissing, Errors))]
async fn show(State(node): State<Arc<Gateway>>, _bearer: Bearer, Named(user): Named<UserId>) -> Result<Reply<User>, ApiError> {
    Ok(ok(accounts(&node)?.profile(user).await?.into()))
}
