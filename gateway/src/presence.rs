//! Who is there. A user is online while one of their devices is attached, here or at another node; told are only those who watch them. Costs for each
//! change what its watchers cost, and nothing for a user nobody watches.
//!
//! Offline is told five seconds late, so that a reconnect is no news. Everything here is a hint and forgotten with the process.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use parking_lot::Mutex;
use protocol::UserId;
use protocol::frame::Presence;
use smallvec::SmallVec;
use tokio::sync::Notify;

use crate::deliver::Sessions;
use crate::metrics;
use crate::node::{Gateway, now_ms};
use crate::outbox::Outbox;

/// Between the end of the last session and being told offline.
pub const DEBOUNCE: Duration = Duration::from_secs(5);
/// How often it is looked for who has been gone for so long.
const TURN: Duration = Duration::from_millis(250);
/// In a cluster: how often the registry is asked who of the watched is at other nodes.
const ELSEWHERE_EVERY: Duration = Duration::from_secs(5);
/// Users asked for at once.
const BATCH: usize = 1_000;
/// What is told of the last time somebody was seen: whole minutes.
const MINUTE_MS: u64 = 60_000;

#[derive(Debug, Default)]
struct Watched {
    /// As it was told last.
    online: bool,
    /// At another node.
    elsewhere: bool,
    /// The last time the last session here, or at the other nodes, ended: only that end is told.
    left: Option<Instant>,
    watchers: SmallVec<[Arc<Outbox>; 1]>,
}

/// A user whose last session here has ended.
#[derive(Debug, Clone, Copy)]
struct Going {
    user: UserId,
    left: Instant,
    left_ms: u64,
}

/// A user to be watched, with what is known beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watch {
    /// Who.
    pub user: UserId,
    /// When the store saw a device of theirs last, milliseconds since 1970.
    pub last_seen_ms: Option<u64>,
    /// Whether the registry has them at another node.
    pub elsewhere: bool,
}

/// The watched users of this node: as many as its sessions watch.
#[derive(Debug)]
pub struct Presences {
    sessions: Arc<Sessions>,
    watched: DashMap<UserId, Watched>,
    going: Mutex<VecDeque<Going>>,
    /// Somebody is going.
    goes: Notify,
}

fn offline(last_seen_ms: Option<u64>) -> Presence {
    Presence::Offline { last_seen_ms: last_seen_ms.map(|at| at - at % MINUTE_MS) }
}

impl Presences {
    /// Nobody is watched yet.
    pub fn new(sessions: Arc<Sessions>) -> Self {
        Self { sessions, watched: DashMap::new(), going: Mutex::default(), goes: Notify::new() }
    }

    /// From now on this session hears of these users, and at once how they are. Whoever comes or goes meanwhile is told behind it.
    pub fn watch(&self, outbox: &Arc<Outbox>, watches: &[Watch]) {
        for watch in watches {
            let mut watched = self.watched.entry(watch.user).or_default();
            let first = watched.watchers.is_empty();
            watched.elsewhere |= watch.elsewhere;
            let there = watched.elsewhere || self.sessions.has(watch.user);
            // one who is going counts as there until that is told
            watched.online = there || (watched.online && !first);
            watched.watchers.push(Arc::clone(outbox));
            let presence = if watched.online { Presence::Online } else { offline(watch.last_seen_ms) };
            outbox.presence(watch.user, presence);
        }
        metrics::watches(watches.len() as f64);
    }

    /// This session hears no more of these users.
    pub fn unwatch(&self, outbox: &Arc<Outbox>, users: &[UserId]) {
        for user in users {
            if let Some(mut watched) = self.watched.get_mut(user) {
                watched.watchers.retain(|watcher| !Arc::ptr_eq(watcher, outbox));
            }
            self.watched.remove_if(user, |_, watched| watched.watchers.is_empty());
        }
        metrics::watches(-(users.len() as f64));
    }

    /// A session of this user was entered here.
    pub fn entered(&self, user: UserId) {
        if let Some(mut watched) = self.watched.get_mut(&user) {
            watched.tell_online(user);
        }
    }

    /// A session of this user has left. Was it the last, its watchers are told when it has not come back for a while.
    pub fn left(&self, user: UserId) {
        if self.watched.contains_key(&user) && !self.sessions.has(user) {
            self.going(user, Instant::now(), now_ms());
        }
    }

    fn going(&self, user: UserId, now: Instant, left_ms: u64) {
        {
            let Some(mut watched) = self.watched.get_mut(&user) else { return };
            watched.left = watched.left.max(Some(now));
        }
        self.going.lock().push_back(Going { user, left: now, left_ms });
        self.goes.notify_one();
    }

    /// Tells of those who have been gone for long enough.
    pub fn turn(&self, now: Instant) {
        loop {
            let going = {
                let mut all = self.going.lock();
                match all.front() {
                    Some(first) if first.left + DEBOUNCE <= now => all.pop_front(),
                    _ => None,
                }
            };
            let Some(going) = going else { return };
            let Some(mut watched) = self.watched.get_mut(&going.user) else { continue };
            // who came back and left again has five seconds of their own
            let last = watched.left == Some(going.left);
            if last && watched.online && !watched.elsewhere && !self.sessions.has(going.user) {
                watched.online = false;
                watched.tell(going.user, offline(Some(going.left_ms)));
            }
        }
    }

    /// What the registry says of a watched user.
    fn elsewhere(&self, user: UserId, elsewhere: bool) {
        let Some(mut watched) = self.watched.get_mut(&user) else { return };
        let was = std::mem::replace(&mut watched.elsewhere, elsewhere);
        if elsewhere {
            watched.tell_online(user);
        } else if was && !self.sessions.has(user) {
            drop(watched);
            self.going(user, Instant::now(), now_ms());
        }
    }

    /// How many users are watched.
    pub fn watched(&self) -> usize {
        self.watched.len()
    }

    fn users(&self) -> Vec<UserId> {
        self.watched.iter().map(|entry| *entry.key()).collect()
    }
}

impl Watched {
    fn tell_online(&mut self, user: UserId) {
        if !std::mem::replace(&mut self.online, true) {
            self.tell(user, Presence::Online);
        }
    }

    fn tell(&self, user: UserId, presence: Presence) {
        for watcher in &self.watchers {
            watcher.presence(user, presence);
        }
    }
}

/// Tells who has gone, for ever; in a cluster also who is at other nodes.
pub async fn run(node: &Gateway) {
    let turns = async {
        loop {
            node.presences.goes.notified().await;
            while !node.presences.going.lock().is_empty() {
                tokio::time::sleep(TURN).await;
                node.presences.turn(Instant::now());
            }
        }
    };
    tokio::join!(turns, ask_for_ever(node));
}

async fn ask_for_ever(node: &Gateway) {
    if node.ports.links.is_none() {
        return; // one process: whoever is there is here
    }
    loop {
        tokio::time::sleep(ELSEWHERE_EVERY).await;
        for users in node.presences.users().chunks(BATCH) {
            match elsewhere(node, users).await {
                Some(there) => users.iter().zip(there).for_each(|(user, there)| node.presences.elsewhere(*user, there)),
                None => break,
            }
        }
    }
}

/// Which of these users are at other nodes, in order; none: the registry does not answer.
pub async fn elsewhere(node: &Gateway, users: &[UserId]) -> Option<Vec<bool>> {
    if node.ports.links.is_none() || users.is_empty() {
        return Some(vec![false; users.len()]);
    }
    match node.ports.registry.nodes(users).await {
        Ok(nodes) => Some(nodes.iter().map(|nodes| nodes.iter().any(|at| *at != node.node)).collect()),
        Err(why) => {
            tracing::debug!(%why, "who is at other nodes cannot be told now");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::DeviceName;

    struct World {
        sessions: Arc<Sessions>,
        presences: Presences,
        watcher: Arc<Outbox>,
        now: Instant,
    }

    fn bob() -> UserId {
        UserId::new(2).unwrap()
    }

    impl World {
        fn new() -> Self {
            let sessions = Arc::new(Sessions::default());
            let presences = Presences::new(Arc::clone(&sessions));
            Self { sessions, presences, watcher: Outbox::new(), now: Instant::now() }
        }

        fn attach(&self, device: &str) -> Arc<Outbox> {
            let outbox = Outbox::new();
            self.sessions.enter(bob(), &device.parse::<DeviceName>().unwrap(), &outbox, 9).unwrap();
            self.presences.entered(bob());
            outbox
        }

        fn leave(&self, outbox: &Arc<Outbox>) {
            self.sessions.leave(bob(), outbox);
            self.presences.left(bob());
        }

        fn watch(&self) {
            self.presences.watch(&self.watcher, &[Watch { user: bob(), last_seen_ms: Some(61_000), elsewhere: false }]);
        }

        /// So many seconds later.
        fn later(&self, seconds: u64) {
            self.presences.turn(self.now + Duration::from_secs(seconds));
        }

        fn told(&self) -> Vec<Presence> {
            self.watcher.take().hints.unwrap_or_default().presence.iter().map(|(_, presence)| *presence).collect()
        }
    }

    #[test]
    fn at_watch_one_hears_how_it_is_and_then_what_changes() {
        let world = World::new();
        world.watch();
        assert_eq!(world.told(), [Presence::Offline { last_seen_ms: Some(60_000) }], "in whole minutes");
        let phone = world.attach("phone");
        assert_eq!(world.told(), [Presence::Online]);
        let tablet = world.attach("tablet");
        world.leave(&phone);
        world.later(60);
        assert_eq!(world.told(), [], "a second device is no news, nor is its end");
        world.leave(&tablet);
        world.later(4);
        assert_eq!(world.told(), []);
        world.later(6);
        let [Presence::Offline { last_seen_ms: Some(at) }] = world.told()[..] else { panic!("offline, once") };
        assert!(at % 60_000 == 0 && now_ms() - at < 120_000);
        world.later(60);
        assert_eq!(world.told(), []);
    }

    #[test]
    fn a_reconnect_within_the_debounce_is_no_news() {
        let world = World::new();
        let phone = world.attach("phone");
        world.watch();
        assert_eq!(world.told(), [Presence::Online]);
        world.leave(&phone);
        let again = world.attach("phone");
        world.later(6);
        assert_eq!(world.told(), []);
        // who begins to watch meanwhile is told the same as the others
        world.leave(&again);
        let other = Outbox::new();
        world.presences.watch(&other, &[Watch { user: bob(), last_seen_ms: None, elsewhere: false }]);
        assert_eq!(other.take().hints.unwrap().presence, [(bob(), Presence::Online)]);
    }

    #[test]
    fn the_last_leave_counts_not_the_first() {
        let world = World::new();
        let phone = world.attach("phone");
        world.watch();
        world.told();
        world.sessions.leave(bob(), &phone);
        let after = |seconds| world.now + Duration::from_secs(seconds);
        world.presences.going(bob(), after(0), 60_000);
        let again = world.attach("phone");
        world.sessions.leave(bob(), &again);
        world.presences.going(bob(), after(4), 120_000);
        world.later(6);
        assert_eq!(world.told(), [], "two seconds after the last leave");
        world.later(9);
        assert_eq!(world.told(), [Presence::Offline { last_seen_ms: Some(120_000) }]);
    }

    #[test]
    fn another_node_counts_as_well() {
        let world = World::new();
        world.watch();
        world.told();
        world.presences.elsewhere(bob(), true);
        assert_eq!(world.told(), [Presence::Online]);
        let phone = world.attach("phone");
        world.presences.elsewhere(bob(), false);
        world.later(60);
        assert_eq!(world.told(), []);
        world.presences.elsewhere(bob(), true);
        world.leave(&phone);
        world.later(60);
        assert_eq!(world.told(), [], "still at the other");
        world.presences.elsewhere(bob(), false);
        world.later(60);
        assert_eq!(world.told().len(), 1);
    }

    #[test]
    fn nothing_is_left_of_who_watches_no_more() {
        let world = World::new();
        world.watch();
        world.told();
        world.presences.unwatch(&world.watcher, &[bob()]);
        assert!(world.presences.watched.is_empty());
        let phone = world.attach("phone");
        world.leave(&phone);
        world.later(60);
        assert_eq!(world.told(), []);
        assert!(world.presences.going.lock().is_empty(), "nobody waits for who is not watched");
    }
}
