//! Who is in the cluster, in which roles, and at which address.
//!
//! Each process renews one lease entry in Redis every half second and reads all others in the same call ([`redis`]). [`lease`] (pure) judges
//! the answers, in Redis's own time: no process's clock matters. Everybody reads the result as a [`View`].
//!
//! - **Role lease, 2 s**: a member counts for its roles while it was seen in the last 2 s; who takes over partitions goes by this.
//! - **Node lease, 10 s**: its registrations count while it was seen in the last 10 s.
//! - **Hold-off, 2 s**: after the store was found empty, went back in time, or was away for this process, nothing new is taken; what one has
//!   is kept. So nobody takes everything because the others have not come back yet.
//! - **Unreachable**: the view freezes. Who cannot renew goes on with what it has and takes nothing new.
//! - **Reach**: who renews and does not reach what a partition needs (the log, its database) says so, and others take it ([`reach`]).
//!
//! Leases only decide who tries; what is safe stands on the compare-and-set in storage and on the chain.

pub mod lease;
pub mod reach;
pub mod redis;
pub mod trouble;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::registry::{NodeId, Registration};
use lease::NODE_LEASE_US;
use reach::{Reach, Settled};
pub(crate) use redis::bury;
pub use redis::{Membership, Voice, look};
pub use trouble::{Trouble, Troubles};

/// One role of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Holds clients' connections.
    Gateway,
    /// Reads partitions of `messages`.
    Router,
    /// Owns virtual shards.
    Storage,
}

/// Roles of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Roles {
    /// [`Role::Gateway`].
    pub gateway: bool,
    /// [`Role::Router`].
    pub router: bool,
    /// [`Role::Storage`].
    pub storage: bool,
}

impl Roles {
    /// Every role.
    pub const ALL: Self = Self { gateway: true, router: true, storage: true };

    /// Whether this role is among them.
    pub fn has(self, role: Role) -> bool {
        match role {
            Role::Gateway => self.gateway,
            Role::Router => self.router,
            Role::Storage => self.storage,
        }
    }

    /// These without one.
    #[must_use]
    pub fn without(mut self, role: Role) -> Self {
        match role {
            Role::Gateway => self.gateway = false,
            Role::Router => self.router = false,
            Role::Storage => self.storage = false,
        }
        self
    }
}

/// What a process says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its node and boot.
    pub node: NodeId,
    /// Its name, for people.
    pub name: String,
    /// What it does.
    pub roles: Roles,
    /// Where other nodes reach it; nothing when they need not.
    pub address: Option<SocketAddr>,
    /// Its build, for people.
    pub version: String,
    /// When it started by its own clock, milliseconds since 1970; for people.
    pub started_ms: u64,
    /// Partitions it works on that must not get more.
    pub troubles: Troubles,
    /// What it reaches; builds before this one say nothing of it.
    pub reach: Option<Reach>,
}

/// What a process knows of the cluster. Compares equal as long as nothing changes that anybody acts on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct View {
    /// Members whose node lease stands, by node.
    pub members: Vec<Member>,
    /// Boots that are dead for sure: silent for longer than the node lease, followed by a later boot of their node, or buried.
    pub dead: Vec<NodeId>,
    /// Those of [`Self::members`] whose role lease stands.
    acting: Vec<NodeId>,
    /// What those of [`Self::acting`] have said for long enough of what they reach.
    reach: Vec<(NodeId, Settled)>,
    /// Nothing new may be taken now.
    pub hold_off: bool,
    /// Whether an answer has ever come.
    pub known: bool,
    /// Since when the lease store has not answered; nothing while it does.
    pub unreachable_since: Option<Instant>,
    /// What [`Self::members`] say of partitions that must not get more, all together.
    troubles: Troubles,
    /// Whether boots that are in no list may be taken for dead: the store and our contact with it are older than the node lease.
    settled: bool,
}

impl View {
    /// Live members of a role, sorted. Every process that reads the same store has the same list within about half a second.
    pub fn live(&self, role: Role) -> Vec<NodeId> {
        let holds = |member: &&Member| member.roles.has(role) && self.acting.binary_search(&member.node).is_ok();
        self.members.iter().filter(holds).map(|member| member.node).collect()
    }

    /// Live members of a role that reach these parts, sorted: those of whom nothing else is known, if there is one of whom it is known for long;
    /// else all live ones. Equal for all as [`Self::live`] is.
    pub fn able(&self, role: Role, needs: &[&str]) -> Vec<NodeId> {
        let mut able = self.live(role);
        let word = |node: &NodeId| self.reach.iter().find(|(of, _)| of == node).map(|(_, settled)| settled);
        let all_speak = able.iter().all(|node| word(node).is_some());
        if all_speak && able.iter().any(|node| word(node).is_some_and(|settled| settled.proven(needs))) {
            able.retain(|node| word(node).is_some_and(|settled| !settled.unable(needs)));
        }
        able
    }

    /// Where a node is reached, while its node lease stands.
    pub fn address(&self, node: NodeId) -> Option<SocketAddr> {
        let at = self.members.binary_search_by_key(&node, |member| member.node).ok()?;
        self.members.get(at)?.address
    }

    /// Partitions that must not get more now, as those who work on them say. A process that dies is heard for as long as its node lease stands.
    pub const fn troubles(&self) -> &Troubles {
        &self.troubles
    }

    /// Whether partitions may be taken over now: the store answers, and no hold-off runs. What one has is kept either way.
    pub fn may_acquire(&self) -> bool {
        self.known && !self.hold_off && self.unreachable_since.is_none()
    }
}

/// The shared handle to the view. Clones are cheap and see the same.
#[derive(Debug, Clone)]
pub struct Members {
    view: watch::Receiver<Arc<View>>,
    /// Redis's time of the last answer, microseconds; 0 before it, and while the store is unreachable.
    heard_us: Arc<AtomicU64>,
}

/// Who may change what a [`Members`] sees.
#[derive(Debug)]
pub struct Publisher {
    view: watch::Sender<Arc<View>>,
    heard_us: Arc<AtomicU64>,
    last: Mutex<Arc<View>>,
}

impl Members {
    /// A handle and who feeds it.
    pub fn channel() -> (Publisher, Self) {
        let (sender, view) = watch::channel(Arc::<View>::default());
        let heard_us = Arc::<AtomicU64>::default();
        let publisher = Publisher { view: sender, heard_us: Arc::clone(&heard_us), last: Mutex::default() };
        (publisher, Self { view, heard_us })
    }

    /// A handle that never knows anything.
    pub fn unknown() -> Self {
        Self::channel().1
    }

    /// What is known now.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }

    /// Redis's time of the last answer, microseconds; 0 before it, and while the store is unreachable.
    pub fn heard_us(&self) -> u64 {
        self.heard_us.load(Ordering::Relaxed)
    }

    /// Tells of every change.
    pub fn watch(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    /// Whether an entry of the registry names a dead boot. In doubt it doesn't: nothing is void while the store is unreachable, or younger
    /// than a node lease, and a boot never heard of gets a node lease's time from its registration to appear.
    pub fn is_void(&self, registration: Registration) -> bool {
        let heard_us = self.heard_us();
        if heard_us == 0 {
            return false;
        }
        let view = self.view.borrow();
        if view.members.binary_search_by_key(&registration.node, |member| member.node).is_ok() {
            return false;
        }
        // a counter is the time of the registration in microseconds of Redis, or a little more
        let old = registration.counter.saturating_add(NODE_LEASE_US) < heard_us;
        view.dead.binary_search(&registration.node).is_ok() || (view.settled && old)
    }
}

impl Publisher {
    /// Makes this the view; readers are woken only when it differs. `heard_us`: Redis's time of the answer, 0 while it is unreachable.
    pub fn publish(&self, mut view: View, heard_us: u64) {
        view.troubles = Troubles::default();
        for member in &view.members {
            view.troubles.merge(&member.troubles);
        }
        let mut last = self.last.lock();
        if **last != view {
            *last = Arc::new(view);
            self.view.send_replace(Arc::clone(&last));
        }
        self.heard_us.store(heard_us, Ordering::Relaxed);
    }
}

/// A view in which exactly these live and nothing is held off, for tests and for a process that is its own cluster. It is changed through
/// the publisher.
pub fn fixed(members: Vec<Member>) -> (Publisher, Members) {
    let (publisher, handle) = Members::channel();
    publisher.publish(fixed_view(members), 0);
    (publisher, handle)
}

/// The view of [`fixed`].
pub fn fixed_view(mut members: Vec<Member>) -> View {
    members.sort_unstable_by_key(|member| member.node);
    let acting = members.iter().map(|member| member.node).collect();
    View { members, acting, known: true, ..View::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assign::Kind;

    fn member(node: u16, roles: Roles) -> Member {
        let node = NodeId { node, boot: u64::from(node) };
        Member {
            node,
            name: String::new(),
            roles,
            address: None,
            version: String::new(),
            started_ms: 0,
            troubles: Troubles::default(),
            reach: None,
        }
    }

    #[tokio::test]
    async fn a_fixed_view_is_seen_and_its_changes_are_told() {
        let (publisher, members) = fixed(vec![member(2, Roles::ALL), member(1, Roles::ALL.without(Role::Storage))]);
        let view = members.view();
        assert_eq!(view.live(Role::Router).len(), 2);
        assert_eq!(view.live(Role::Storage), [NodeId { node: 2, boot: 2 }]);
        assert!(view.may_acquire());
        let mut changes = members.watch();
        changes.borrow_and_update();
        publisher.publish(fixed_view(vec![member(1, Roles::ALL.without(Role::Storage)), member(2, Roles::ALL)]), 0);
        assert!(!changes.has_changed().unwrap(), "the same view wakes nobody");
        publisher.publish(fixed_view(vec![member(1, Roles::ALL)]), 0);
        assert!(changes.has_changed().unwrap());
        assert_eq!(members.view().live(Role::Storage).len(), 1);
    }

    #[test]
    fn what_members_say_of_their_partitions_is_heard_and_taken_back() {
        let mut says = member(1, Roles::ALL);
        says.troubles.set(Kind::Mailbox, 7, Trouble::Late);
        let mut also = member(2, Roles::ALL);
        also.troubles.set(Kind::Messages, 3, Trouble::Stopped);
        let (publisher, members) = fixed(vec![says.clone(), also]);
        let of = |kind, partition| members.view().troubles().of(kind, partition);
        assert_eq!(of(Kind::Mailbox, 7), Some(Trouble::Late));
        assert_eq!(of(Kind::Messages, 3), Some(Trouble::Stopped));
        assert_eq!(of(Kind::Messages, 7), None);
        let mut changes = members.watch();
        changes.borrow_and_update();
        publisher.publish(fixed_view(vec![says, member(2, Roles::ALL)]), 0);
        assert!(changes.has_changed().unwrap());
        assert_eq!(of(Kind::Messages, 3), None);
    }

    #[test]
    fn who_knows_nothing_voids_nothing() {
        let registration = Registration { node: NodeId { node: 1, boot: 1 }, counter: 1 };
        assert!(!Members::unknown().is_void(registration));
    }
}
