//! The devices of a user, and logging one of them out from another.

use std::sync::Arc;

use accounts::session::{Device, Why};
use accounts::store::sessions::Which;
use axum::extract::State;
use protocol::DeviceName;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::bearer::Bearer;
use super::body::Named;
use super::error::{ApiError, Errors, MayBeMissing, NeedsToken};
use super::reply::{Done, Reply, Success, ok};
use super::{accounts, time};
use crate::node::{Gateway, now_ms};

pub(super) fn routes() -> OpenApiRouter<Arc<Gateway>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(log_out))
}

/// A device that is logged in.
#[derive(Serialize, ToSchema)]
#[schema(as = Device)]
struct View {
    /// Its name.
    #[schema(value_type = String, example = "phone-1")]
    device: DeviceName,
    /// What its owner sees it as; may be empty.
    label: String,
    /// Whether it is the one that asks.
    current: bool,
    /// When it logged in.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it was last heard of.
    #[schema(format = DateTime)]
    last_seen_at: String,
}

/// List your devices
///
/// The one that was seen last comes first.
#[utoipa::path(get, path = "/v1/devices", tag = "Accounts", security(("bearer" = [])),
    responses((status = 200, description = "Devices that are logged in.", body = Success<Vec<View>>), NeedsToken, Errors))]
async fn list(State(node): State<Arc<Gateway>>, bearer: Bearer) -> Result<Reply<Vec<View>>, ApiError> {
    let devices = accounts(&node)?.devices(bearer.user, now_ms()).await?;
    let view = |one: Device| View {
        current: bearer.sid == Some(one.sid),
        device: one.device,
        label: one.label,
        created_at: time(one.created_ms),
        last_seen_at: time(one.seen_ms),
    };
    Ok(ok(devices.into_iter().map(view).collect()))
}

/// Log a device out
///
/// Its tokens are refused from now on, and its sockets close with 4401.
#[utoipa::path(delete, path = "/v1/devices/{device}", tag = "Accounts", security(("bearer" = [])),
    params(("device" = String, Path, description = "One of your devices")),
    responses((status = 200, description = "The session of the device has ended.", body = Success<Done>), NeedsToken, MayBeMissing, Errors))]
async fn log_out(
    State(node): State<Arc<Gateway>>,
    bearer: Bearer,
    Named(device): Named<DeviceName>,
) -> Result<Reply<Done>, ApiError> {
    accounts(&node)?.end(Which::Device(bearer.user, &device), Why::Remote, now_ms()).await?;
    Ok(ok(Done {}))
}
