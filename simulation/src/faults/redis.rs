//! Redis as the cluster uses it: one step for each call, its own clock, entries of devices and leases of members. It may forget everything, come
//! back as it was, or say nothing. What each call does is what the scripts of the router's `registry::redis` and `members::redis` do.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use protocol::{DeviceName, UserId};
use router::members::Member;
use router::members::lease::{Answer, Seen};
use router::registry::{NodeId, Registration};

use crate::determinism::BEGAN_MS;
use crate::sim::Sim;

/// Silent members are forgotten after this, microseconds.
const FORGET_US: u64 = 60_000_000;

#[derive(Debug, Clone, Default)]
struct State {
    users: BTreeMap<UserId, BTreeMap<DeviceName, Registration>>,
    /// Seen, since, what it says of itself.
    members: BTreeMap<NodeId, (u64, u64, Member)>,
    born_us: u64,
}

/// Registry and leases of all processes.
pub struct Redis {
    sim: Arc<Sim>,
    state: Mutex<State>,
    saved: Mutex<State>,
    /// When a device's entry at a node last went away.
    ceased: Mutex<BTreeMap<(UserId, DeviceName, NodeId), u64>>,
}

impl Redis {
    /// An empty one.
    pub fn new(sim: &Arc<Sim>) -> Arc<Self> {
        Arc::new(Self { sim: Arc::clone(sim), state: Mutex::default(), saved: Mutex::default(), ceased: Mutex::default() })
    }

    fn now_us(&self) -> u64 {
        (BEGAN_MS + self.sim.now_ms()) * 1000
    }

    /// Everything is gone.
    pub fn forget_all(&self) {
        *self.state.lock() = State::default();
    }

    /// A replica has come so far.
    pub fn save(&self) {
        *self.saved.lock() = self.state.lock().clone();
    }

    /// That replica is the primary now.
    pub fn fail_over(&self) {
        *self.state.lock() = self.saved.lock().clone();
    }

    /// When the entry of a device at a node last went away or was taken over.
    pub fn ceased_at(&self, user: UserId, device: &DeviceName, node: NodeId) -> Option<u64> {
        self.ceased.lock().get(&(user, device.clone(), node)).copied()
    }

    fn cease(&self, user: UserId, device: &DeviceName, node: NodeId) {
        self.ceased.lock().insert((user, device.clone(), node), self.sim.now_ms());
    }

    /// Enters a device in place of what was there.
    pub fn register(
        &self,
        user: UserId,
        device: &DeviceName,
        node: NodeId,
        highest: u64,
    ) -> (Registration, Option<Registration>) {
        let mut state = self.state.lock();
        let devices = state.users.entry(user).or_default();
        let old = devices.get(device).copied();
        let counter = self.now_us().max(highest + 1).max(old.map_or(0, |old| old.counter + 1));
        let registration = Registration { node, counter };
        devices.insert(device.clone(), registration);
        if let Some(old) = old {
            self.cease(user, device, old.node);
        }
        (registration, old)
    }

    /// Removes exactly this entry.
    pub fn remove(&self, user: UserId, device: &DeviceName, registration: Registration) -> bool {
        let mut state = self.state.lock();
        let Some(devices) = state.users.get_mut(&user) else { return false };
        let is = devices.get(device) == Some(&registration);
        if is {
            devices.remove(device);
            self.cease(user, device, registration.node);
        }
        is
    }

    /// Enters a device as it was, unless a newer entry is there.
    pub fn restore(&self, user: UserId, device: &DeviceName, mine: Registration) -> Registration {
        let mut state = self.state.lock();
        let stands = state.users.entry(user).or_default().entry(device.clone()).or_insert(mine);
        if (mine.counter, mine.node.boot) > (stands.counter, stands.node.boot) {
            self.cease(user, device, stands.node);
            *stands = mine;
        }
        *stands
    }

    /// Every entry of these users.
    pub fn entries(&self, users: &[UserId]) -> Vec<Vec<Registration>> {
        let of =
            |state: &State, user| state.users.get(user).map(|devices| devices.values().copied().collect()).unwrap_or_default();
        let state = self.state.lock();
        users.iter().map(|user| of(&state, user)).collect()
    }

    /// Every entry of this user, with its device.
    pub fn devices(&self, user: UserId) -> Vec<(DeviceName, Registration)> {
        let state = self.state.lock();
        state.users.get(&user).into_iter().flatten().map(|(device, entry)| (device.clone(), *entry)).collect()
    }

    /// What these users' entries were in the replica.
    pub fn old_entries(&self, users: &[UserId]) -> Vec<Vec<Registration>> {
        let saved = self.saved.lock();
        let of = |user| saved.users.get(user).map(|devices| devices.values().copied().collect()).unwrap_or_default();
        users.iter().map(of).collect()
    }

    /// Renews a lease and reads all others.
    pub fn renew(&self, me: &Member, known_us: u64, request: u64) -> Answer {
        let now_us = self.now_us();
        let mut state = self.state.lock();
        let state = &mut *state;
        state.members.retain(|node, (seen, ..)| *node == me.node || now_us.saturating_sub(*seen) <= FORGET_US);
        let before = state.members.get(&me.node).map(|(seen, since, _)| (*seen, *since));
        let before_us = before.map_or(0, |(seen, _)| seen);
        let lost = known_us > 0 && before_us < known_us && now_us - known_us < FORGET_US;
        let away = before_us > 0 && now_us - before_us > FORGET_US;
        if state.born_us == 0 || lost || away {
            state.born_us = now_us;
        }
        let since_us = before.map_or(now_us, |(_, since)| since);
        state.members.insert(me.node, (now_us, since_us, me.clone()));
        let members = state.members.values().map(|(seen_us, since_us, member)| Seen {
            member: member.clone(),
            seen_us: *seen_us,
            since_us: *since_us,
        });
        Answer { request, now_us, born_us: state.born_us, before_us, members: members.collect(), buried: Vec::new() }
    }
}
