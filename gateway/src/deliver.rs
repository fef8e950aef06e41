//! Events from storage to the sessions of this node. Sessions are found by user; each device of a user has at most one.

use std::collections::BTreeSet;
use std::sync::Arc;

use dashmap::DashMap;
use parking_lot::Mutex;
use protocol::plant::{Bug, planted};
use protocol::{CloseCode, ConversationId, DeviceName, UserId};
use router::registry::NodeId;
use smallvec::SmallVec;
use storage::push::{Deliver, Push, ReceiptPush, Wake};
use tokio::sync::Notify;

use crate::metrics;
use crate::outbox::{Outbox, WakeList};

#[derive(Debug)]
struct Entry {
    device: DeviceName,
    outbox: Arc<Outbox>,
    /// Counter of its registration; 0 before it is attached.
    counter: u64,
}

/// Counter of a session that attached while the registry did not answer. No registration has it.
pub const UNREGISTERED: u64 = 1;

/// Users that are doubted at once. Of more, an entry without a session may stay until this process ends.
const DOUBTED_MAX: usize = 100_000;
/// Of them, so many are looked at in a round.
const DOUBTED_ROUND: usize = 4_096;

/// A session with its place in the registry.
#[derive(Debug, Clone)]
pub struct Entered {
    /// Whose.
    pub user: UserId,
    /// Which device.
    pub device: DeviceName,
    /// Counter of its registration.
    pub counter: u64,
    /// The session.
    pub outbox: Arc<Outbox>,
}

/// The sessions of this node, by user.
#[derive(Debug, Default)]
pub struct Sessions {
    by_user: DashMap<UserId, SmallVec<[Entry; 1]>>,
    /// Notified when pushes may have been lost on their way from another node.
    pub links_broke: Arc<Notify>,
    /// Notified when the registry may have lost entries.
    pub registry_forgot: Arc<Notify>,
    /// Users of whom the registry may have entries here that no session has.
    doubted: Mutex<BTreeSet<UserId>>,
}

/// A user has too many sessions already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany;

impl Sessions {
    /// Enters a session. A session of the same device is replaced and returned, to be closed.
    ///
    /// # Errors
    /// [`TooMany`] when the user has `max` others.
    pub fn enter(
        &self,
        user: UserId,
        device: &DeviceName,
        outbox: &Arc<Outbox>,
        max: usize,
    ) -> Result<Option<Arc<Outbox>>, TooMany> {
        let mut entries = self.by_user.entry(user).or_default();
        if let Some(entry) = entries.iter_mut().find(|entry| entry.device == *device) {
            let old = std::mem::replace(&mut entry.outbox, Arc::clone(outbox));
            entry.counter = 0;
            return Ok((!Arc::ptr_eq(&old, outbox)).then_some(old));
        }
        if entries.len() >= max {
            return Err(TooMany);
        }
        entries.push(Entry { device: device.clone(), outbox: Arc::clone(outbox), counter: 0 });
        Ok(None)
    }

    /// The session stands in the registry with this counter, or a greater one it was told of before.
    pub fn registered(&self, user: UserId, outbox: &Arc<Outbox>, counter: u64) {
        if let Some(mut entries) = self.by_user.get_mut(&user)
            && let Some(entry) = entries.iter_mut().find(|entry| Arc::ptr_eq(&entry.outbox, outbox))
        {
            entry.counter = entry.counter.max(counter);
        }
    }

    /// The device has attached at another node, in place of the registration with this counter: what is left of it here is closed.
    pub fn superseded(&self, user: UserId, device: &DeviceName, counter: u64) {
        let Some(entries) = self.by_user.get(&user) else { return };
        let old = entries.iter().find(|entry| entry.device == *device && (UNREGISTERED + 1..=counter).contains(&entry.counter));
        if let Some(entry) = old {
            entry.outbox.close(CloseCode::Superseded);
        }
    }

    /// The registry may have entries of this user here that no session has.
    pub fn doubt(&self, user: UserId) {
        let mut doubted = self.doubted.lock();
        if doubted.len() < DOUBTED_MAX || doubted.contains(&user) {
            doubted.insert(user);
        } else {
            metrics::dropped("doubt", "full");
        }
    }

    /// Some of those who are doubted; they are so no longer.
    pub(crate) fn take_doubted(&self) -> Vec<UserId> {
        let mut doubted = self.doubted.lock();
        let some: Vec<_> = doubted.iter().take(DOUBTED_ROUND).copied().collect();
        for user in &some {
            doubted.remove(user);
        }
        some
    }

    /// Every session that was attached.
    pub fn entered(&self) -> Vec<Entered> {
        let of = |user: &UserId, entries: &SmallVec<[Entry; 1]>| {
            let attached = entries.iter().filter(|entry| entry.counter > 0);
            let one = |entry: &Entry| Entered {
                user: *user,
                device: entry.device.clone(),
                counter: entry.counter,
                outbox: Arc::clone(&entry.outbox),
            };
            attached.map(one).collect::<SmallVec<[_; 1]>>()
        };
        self.by_user.iter().flat_map(|entries| of(entries.key(), entries.value())).collect()
    }

    /// The session of a device, if there is one here.
    pub fn holder(&self, user: UserId, device: &DeviceName) -> Option<Arc<Outbox>> {
        let entries = self.by_user.get(&user)?;
        entries.iter().find(|entry| entry.device == *device).map(|entry| Arc::clone(&entry.outbox))
    }

    /// Whether the user has a session here.
    pub fn has(&self, user: UserId) -> bool {
        self.by_user.get(&user).is_some_and(|entries| !entries.is_empty())
    }

    /// Tells the sessions of a user that somebody is writing to them.
    pub fn typing(&self, to: UserId, conversation: ConversationId, from: UserId) {
        for entry in self.by_user.get(&to).iter().flat_map(|entries| entries.iter()) {
            entry.outbox.typing(conversation, from);
        }
    }

    /// Something has happened to sessions of this user's account: each connection looks whether its own has ended. Their tokens are refused
    /// already, so one that enters later finds out by itself.
    pub fn look_again(&self, user: UserId) {
        for entry in self.by_user.get(&user).iter().flat_map(|entries| entries.iter()) {
            entry.outbox.look_again();
        }
    }

    /// Removes exactly this session; a newer one of the same device stays.
    pub fn leave(&self, user: UserId, outbox: &Arc<Outbox>) {
        if let Some(mut entries) = self.by_user.get_mut(&user) {
            entries.retain(|entry| !Arc::ptr_eq(&entry.outbox, outbox));
        }
        self.by_user.remove_if(&user, |_, entries| entries.is_empty());
    }

    /// Every session.
    pub fn all(&self) -> Vec<Arc<Outbox>> {
        self.by_user
            .iter()
            .flat_map(|entries| entries.iter().map(|entry| Arc::clone(&entry.outbox)).collect::<Vec<_>>())
            .collect()
    }
}

impl Deliver for Sessions {
    fn push(&self, _node: NodeId, pushes: Vec<Push>) -> Box<dyn Wake> {
        let mut wake = WakeList::default();
        let pushes = if planted(Bug::PushesLost) { Vec::new() } else { pushes };
        for push in pushes {
            let Some(entries) = self.by_user.get(&push.owner) else {
                // who pushes has found an entry of this user here
                self.doubt(push.owner);
                continue;
            };
            for entry in entries.iter() {
                wake.push(&entry.outbox, push.epoch, push.event.clone());
            }
        }
        Box::new(wake)
    }

    fn receipts(&self, _node: NodeId, pushes: Vec<ReceiptPush>) -> Box<dyn Wake> {
        let mut wake = WakeList::default();
        for push in pushes {
            for entry in self.by_user.get(&push.owner).iter().flat_map(|entries| entries.iter()) {
                wake.receipt(&entry.outbox, push.epoch, push.receipt);
            }
        }
        Box::new(wake)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_session_of_a_device_wins_and_an_old_goodbye_does_not_harm_it() {
        let (sessions, user, device) = (Sessions::default(), UserId::new(1).unwrap(), DeviceName::default());
        let (old, new) = (Outbox::new(), Outbox::new());
        assert!(sessions.enter(user, &device, &old, 2).unwrap().is_none());
        assert!(Arc::ptr_eq(&sessions.enter(user, &device, &new, 2).unwrap().unwrap(), &old));
        sessions.leave(user, &old);
        assert_eq!(sessions.all().len(), 1);
        sessions.registered(user, &new, 9);
        // the answer of an attach that was superseded before its entry was
        sessions.registered(user, &new, 8);
        assert_eq!(sessions.entered()[0].counter, 9);
        sessions.superseded(user, &device, 8);
        assert!(new.take().close.is_none(), "it is the entry behind that");
        assert!(sessions.enter(user, &"b".parse().unwrap(), &old, 2).unwrap().is_none());
        assert_eq!(sessions.enter(user, &"c".parse().unwrap(), &old, 2).unwrap_err(), TooMany);
    }
}
