//! Finding somebody whose number one has. Exactly that number; there is no search.

use std::sync::Arc;

use axum::extract::State;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::accounts;
use super::bearer::Bearer;
use super::body::Body;
use super::error::{ApiError, Errors, MayBeMissing, NeedsToken};
use super::registrations::phone;
use super::reply::{Reply, Success, ok};
use super::users::User;
use crate::node::Gateway;

pub(super) fn routes() -> OpenApiRouter<Arc<Gateway>> {
    OpenApiRouter::new().routes(routes!(look_up))
}

/// Whose number it is.
#[derive(Deserialize, ToSchema)]
struct LookUp {
    /// E.164: the plus and 7 to 15 digits.
    #[schema(example = "+4915112345678", pattern = r"^\+[1-9][0-9]{6,14}$")]
    phone: String,
}

/// Find the user of a number
///
/// Few an hour: the number must be known already.
#[utoipa::path(post, path = "/v1/contacts/lookup", tag = "Accounts", security(("bearer" = [])), request_body = LookUp,
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 64 visible ASCII characters")),
    responses((status = 200, description = "The user.", body = Success<User>), NeedsToken, MayBeMissing, Errors))]
async fn look_up(State(node): State<Arc<Gateway>>, bearer: Bearer, Body(sent): Body<LookUp>) -> Result<Reply<User>, ApiError> {
    Ok(ok(accounts(&node)?.look_up(bearer.user, &phone(&sent.phone)?).await?.into()))
}
