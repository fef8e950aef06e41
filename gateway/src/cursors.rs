//! Acknowledged cursors on their way to the store: the newest of each device, written once a second in one batch. A crash loses at most that
//! second: then events come again, and clients drop them by seq.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use parking_lot::Mutex;
use protocol::{DeviceName, UserId};
use storage::store::{Cursor, Place, Seen, Store};

/// How often they are written.
const EVERY: Duration = Duration::from_secs(1);
/// Most rows in one statement, which bounds what it costs in memory. Embedded each is a transaction with its fsync, and others get their turn between two.
const BATCH: usize = 1_000;

/// Cursors not written yet; at most one for each attached device.
pub struct Cursors {
    dirty: DashMap<(UserId, DeviceName), Place>,
    /// Devices that came or went within the last second, and when.
    seen: Mutex<HashMap<(UserId, DeviceName), u64>>,
    store: Arc<dyn Store>,
}

impl Cursors {
    /// Cursors that go to this store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { dirty: DashMap::new(), seen: Mutex::default(), store }
    }

    /// A device has acknowledged up to a place. Of two, the one of the newer incarnation counts, then the later one.
    pub fn acknowledged(&self, user: UserId, device: &DeviceName, place: Place) {
        let mut dirty = self.dirty.entry((user, device.clone())).or_insert(place);
        if (place.epoch, place.seq) > (dirty.epoch, dirty.seq) {
            *dirty = place;
        }
    }

    /// A device has come or gone at this time, milliseconds since 1970.
    pub fn seen(&self, user: UserId, device: &DeviceName, at_ms: u64) {
        self.seen.lock().insert((user, device.clone()), at_ms);
    }

    async fn flush_seen(&self) {
        let taken = std::mem::take(&mut *self.seen.lock());
        let seen: Vec<_> = taken.into_iter().map(|((owner, device), at_ms)| Seen { owner, device, at_ms }).collect();
        for seen in seen.chunks(BATCH) {
            if let Err(why) = self.store.save_seen(seen).await {
                // shown to people and nothing else: the next time they come or go it is right again
                tracing::debug!(%why, devices = seen.len(), "when devices were there is not written");
            }
        }
    }

    /// Writes what has come. What the store does not take is kept and tried again.
    pub async fn flush(&self) {
        self.flush_seen().await;
        let keys: Vec<_> = self.dirty.iter().map(|entry| entry.key().clone()).collect();
        for keys in keys.chunks(BATCH) {
            let taken = keys.iter().filter_map(|key| self.dirty.remove(key));
            let cursors: Vec<_> =
                taken.map(|((owner, device), Place { epoch, seq })| Cursor { owner, device, epoch, seq }).collect();
            if let Err(why) = self.store.save_cursors(&cursors).await {
                tracing::warn!(%why, cursors = cursors.len(), "cursors are not written and will be tried again");
                for Cursor { owner, device, epoch, seq } in &cursors {
                    self.acknowledged(*owner, device, Place { epoch: *epoch, seq: *seq });
                }
            }
        }
    }

    /// Writes for ever.
    pub async fn run(&self) {
        let mut second = tokio::time::interval(EVERY);
        loop {
            second.tick().await;
            self.flush().await;
        }
    }
}
