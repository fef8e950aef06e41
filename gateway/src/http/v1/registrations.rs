//! A number asks for a code, and the code makes a session.

use std::sync::Arc;

use accounts::code::{Code, LIFETIME_MS};
use accounts::phone::Phone;
use accounts::{AccountsError, Caller, Proof, profile};
use axum::Extension;
use axum::extract::State;
use axum::http::HeaderMap;
use protocol::DeviceName;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::accounts;
use super::body::Body;
use super::error::{ApiCode, ApiError, Errors};
use super::idempotency::IdempotencyKey;
use super::reply::{Reply, Success, accepted, ok};
use super::sessions::Session;
use crate::handshake::ClientAddress;
use crate::http::dev::is_at_this_machine;
use crate::node::{Gateway, now_ms};

pub(super) fn routes() -> OpenApiRouter<Arc<Gateway>> {
    OpenApiRouter::new().routes(routes!(ask)).routes(routes!(verify))
}

/// Who wants a code.
#[derive(Deserialize, ToSchema)]
struct Ask {
    /// E.164: the plus and 7 to 15 digits.
    #[schema(example = "+4915112345678", pattern = r"^\+[1-9][0-9]{6,14}$")]
    phone: String,
    /// The device that asks, as in `hello`.
    #[schema(value_type = Option<String>, pattern = "^[A-Za-z0-9._-]{1,64}$")]
    device: Option<DeviceName>,
}

/// A code is on its way.
#[derive(Serialize, ToSchema)]
struct Asked {
    /// How long it is good, seconds.
    expires_in_s: u64,
    /// When another may be asked for, seconds from now.
    retry_after_s: u64,
    /// The code itself: in development mode only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    dev_code: Option<String>,
}

/// A code that has come.
#[derive(Deserialize, ToSchema)]
struct Verify {
    /// The number it was asked for with.
    #[schema(example = "+4915112345678", pattern = r"^\+[1-9][0-9]{6,14}$")]
    phone: String,
    /// The six digits.
    #[schema(example = "123456")]
    code: String,
    /// The device that logs in, as in `hello`: the tokens are good for it only.
    #[schema(value_type = String, example = "phone-1", pattern = "^[A-Za-z0-9._-]{1,64}$")]
    device: DeviceName,
    /// What its owner will see it as in the list of devices.
    #[schema(example = "Ann's phone", max_length = 64)]
    device_label: Option<String>,
    /// Display name, for an account that has none.
    #[schema(example = "Ann", min_length = 1, max_length = 64)]
    name: Option<String>,
}

/// Ask for a one-time code
///
/// The answer is the same whether the number has an account or not.
#[utoipa::path(post, path = "/v1/registrations", tag = "Accounts", request_body = Ask,
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 64 visible ASCII characters")),
    responses((status = 202, description = "A code is on its way.", body = Success<Asked>), Errors))]
async fn ask(
    State(node): State<Arc<Gateway>>,
    Extension(ClientAddress(address)): Extension<ClientAddress>,
    headers: HeaderMap,
    Body(wanted): Body<Ask>,
) -> Result<Reply<Asked>, ApiError> {
    let caller = Caller { address, device: wanted.device };
    let asked = accounts(&node)?.ask(&phone(&wanted.phone)?, &caller, now_ms()).await?;
    let shown = asked.shown.filter(|_| node.config.dev && is_at_this_machine(&node.config, &headers));
    Ok(accepted(Asked {
        expires_in_s: LIFETIME_MS / 1000,
        retry_after_s: asked.retry_after_ms.div_ceil(1000),
        dev_code: shown.map(|code| code.as_str().to_owned()),
    }))
}

/// Log in with a code
///
/// Makes the account if the number has none. With an `Idempotency-Key` the same request gets the same answer for a minute, if it was lost.
#[utoipa::path(post, path = "/v1/registrations/verify", tag = "Accounts", request_body = Verify,
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 64 visible ASCII characters")),
    responses((status = 200, description = "The device is logged in.", body = Success<Session>), Errors))]
async fn verify(
    State(node): State<Arc<Gateway>>,
    Extension(ClientAddress(address)): Extension<ClientAddress>,
    IdempotencyKey(key): IdempotencyKey,
    Body(sent): Body<Verify>,
) -> Result<Reply<Session>, ApiError> {
    let phone = phone(&sent.phone)?;
    let label = sent.device_label.as_deref().unwrap_or_default();
    let label = profile::label(label).map_err(|why| ApiError::bad_text("device_label", why))?;
    let name = sent.name.as_deref().map(profile::name).transpose().map_err(|why| ApiError::bad_text("name", why))?;
    // no code at all is answered like a wrong one
    let code = Code::parse(&sent.code).ok_or(AccountsError::BadCode)?;
    let (device, name, key) = (&sent.device, name.unwrap_or_default(), key.as_deref());
    let proof = Proof { phone: &phone, code: &code, device, label, name, key };
    let grant = accounts(&node)?.verify(&proof, address, now_ms()).await?;
    Ok(ok(Session::new(&node, grant)?).unkept())
}

/// A number of a request.
pub(super) fn phone(text: &str) -> Result<Phone, ApiError> {
    text.parse().map_err(|why: accounts::phone::NotAPhone| ApiError::new(ApiCode::BadPhone, why.to_string()))
}
