//! Attach: register, wait for the answer, then read. An event that is committed before the read is read; one committed after it finds the
//! registration and is pushed. So none falls between, whoever is quicker. (storage does the mirror image: commit, then look up.)

use std::time::Duration;

use protocol::frame::ResyncReason;
use protocol::plant::{Bug, held, planted};
use protocol::{DeviceName, Seq, UserId};
use router::registry::{NodeId, Registered, Registration, Registry};
use storage::store::{Head, Place, Slice, Store, StoreError};

use crate::deliver::TooMany;
use crate::known::Known;

/// The registry is waited for this long; without it events come by the periodic comparison of heads.
const REGISTRY_WAIT: Duration = Duration::from_millis(200);

/// Who attaches, and where to go on.
#[derive(Debug, Clone)]
pub struct Attach {
    /// The user.
    pub user: UserId,
    /// The device.
    pub device: DeviceName,
    /// Stream epoch of the cursor; absent: the present one.
    pub epoch: Option<u64>,
    /// Last seq stored at the client; absent: the server's record of the device.
    pub cursor: Option<Seq>,
    /// Most events of the first read.
    pub max_events: u32,
    /// Most bytes of the first read.
    pub max_bytes: u32,
    /// Most other devices the user may have in the cluster.
    pub devices_max: usize,
}

/// Where the session begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// After this cursor, with these events first.
    At(Seq, Slice),
    /// The cursor cannot be continued.
    Resync(Head, ResyncReason),
    /// Not at all: the user has too many other devices.
    TooMany,
}

/// An attach that is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// The entry in the registry and what it met there, if the registry answered.
    pub registered: Option<Registered>,
    /// The present stream epoch.
    pub epoch: u64,
    /// Where to go on.
    pub start: Start,
}

impl Attached {
    /// The entry in the registry, if it answered.
    pub fn registration(&self) -> Option<Registration> {
        self.registered.map(|registered| registered.registration)
    }

    /// Whether the cursor is beyond the mailbox's head.
    pub const fn is_ahead(&self) -> bool {
        matches!(self.start, Start::Resync(_, ResyncReason::Ahead))
    }
}

/// Registers, then reads.
///
/// # Errors
/// [`StoreError`] when the mailbox cannot be read now; the caller tries again.
pub async fn attach(
    registry: &dyn Registry,
    store: &dyn Store,
    known: &Known,
    node: NodeId,
    request: &Attach,
) -> Result<Attached, StoreError> {
    if planted(Bug::ReadBeforeRegister) {
        let (epoch, start) = read(store, known, request).await?;
        let registered = register(registry, node, request).await.unwrap_or_default();
        return Ok(Attached { registered, epoch, start });
    }
    let Ok(registered) = register(registry, node, request).await else {
        return Ok(Attached { registered: None, epoch: 0, start: Start::TooMany });
    };
    let held = held("attach:registered");
    if held > 0 {
        tokio::time::sleep(Duration::from_millis(held)).await;
    }
    match (read(store, known, request).await, registered) {
        (Ok((epoch, start)), _) => Ok(Attached { registered, epoch, start }),
        (Err(why), None) => Err(why),
        (Err(why), Some(Registered { registration, .. })) => {
            // the next try registers anew; if there is none, nothing stays behind, or its user is doubted
            let _ = registry.deregister(request.user, &request.device, registration).await;
            Err(why)
        }
    }
}

async fn register(registry: &dyn Registry, node: NodeId, request: &Attach) -> Result<Option<Registered>, TooMany> {
    let registered = registry.register_within(request.user, &request.device, node, request.devices_max);
    match tokio::time::timeout(REGISTRY_WAIT, registered).await {
        Ok(Ok(Some(registered))) => Ok(Some(registered)),
        Ok(Ok(None)) => Err(TooMany),
        Ok(Err(why)) => {
            tracing::warn!(user = %request.user, %why, "attached without registration");
            Ok(None)
        }
        Err(_) => {
            tracing::warn!(user = %request.user, "attached without registration: the registry is slow");
            Ok(None)
        }
    }
}

async fn read(store: &dyn Store, known: &Known, request: &Attach) -> Result<(u64, Start), StoreError> {
    let place = match request.cursor {
        Some(seq) => Place { epoch: request.epoch.unwrap_or_else(|| store.known_epoch(request.user)), seq },
        None => store.cursor(request.user, &request.device, None).await?,
    };
    let slice = store.read(request.user, place.seq, request.max_events, request.max_bytes).await?;
    let epoch = slice.epoch;
    if place.epoch != epoch && request.epoch.is_none() {
        // the stream was replaced between the two reads, or since this process has last looked: the next try sees the new one
        return Err(StoreError::Unavailable("the stream epoch has changed".into()));
    }
    if place.epoch != epoch && !planted(Bug::CursorWithoutEpoch) {
        return Ok((epoch, Start::Resync(slice.head, ResyncReason::Epoch)));
    }
    if place.seq > slice.head.head {
        return Ok((epoch, Start::Resync(slice.head, ResyncReason::Ahead)));
    }
    if place.seq < slice.head.floor && request.cursor != Some(0) {
        return Ok((epoch, Start::Resync(slice.head, ResyncReason::BelowFloor)));
    }
    // 0 asks for the oldest event kept
    let cursor = place.seq.max(slice.head.floor);
    // a device is known from now on, at what it said: if it ever comes without a cursor, it goes on from there
    if request.cursor.is_none() {
        known.add(request.user, &request.device, epoch);
    } else if !known.has(request.user, &request.device, epoch) {
        store.cursor(request.user, &request.device, Some(cursor)).await?;
        known.add(request.user, &request.device, epoch);
    }
    Ok((epoch, Start::At(cursor, slice)))
}
