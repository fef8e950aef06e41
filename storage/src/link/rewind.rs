//! Requests to rewind, on their way from the storage owners of a process to every live router.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use router::consume::Rewind;
use router::registry::NodeId;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::sender::LinkDeliver;

/// The same request again within this time is not sent again.
const WINDOW: Duration = Duration::from_secs(1);
/// Requests remembered; the oldest is forgotten.
const WINDOW_MAX: usize = 256;

/// Which nodes have routers now, as the members of the cluster say. Cheap: called for each request.
pub type Routers = Arc<dyn Fn() -> Vec<NodeId> + Send + Sync>;

/// Requests sent lately. Pure but for the clock that is given.
#[derive(Debug, Default)]
struct Recent(VecDeque<(Instant, Rewind)>);

impl Recent {
    fn has(&mut self, rewind: &Rewind, now: Instant) -> bool {
        while self.0.front().is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW) {
            self.0.pop_front();
        }
        self.0.iter().any(|(_, sent)| sent == rewind)
    }

    fn note(&mut self, rewind: Rewind, now: Instant) {
        if self.0.len() >= WINDOW_MAX {
            self.0.pop_front();
        }
        self.0.push_back((now, rewind));
    }
}

/// Takes requests to the routers. Best effort: one that is lost is asked for again at the next hole or by the audit.
pub struct RewindSender {
    /// The way to other nodes.
    pub links: Arc<LinkDeliver>,
    /// Where routers are.
    pub routers: Routers,
    /// The routers of this process, if it has any.
    pub local: Option<mpsc::Sender<Rewind>>,
}

impl std::fmt::Debug for RewindSender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RewindSender").finish_non_exhaustive()
    }
}

impl RewindSender {
    /// Works until all senders of `rewinds` are gone.
    pub async fn run(self, mut rewinds: mpsc::Receiver<Rewind>) {
        let mut recent = Recent::default();
        while let Some(rewind) = rewinds.recv().await {
            let now = Instant::now();
            let what = if recent.has(&rewind, now) {
                "repeat"
            } else if self.send(rewind) {
                recent.note(rewind, now);
                "sent"
            } else {
                "dropped"
            };
            counter!("switchboard_link_rewinds_total", "what" => what).increment(1);
        }
    }

    /// To every router; says whether at least one way took it.
    fn send(&self, rewind: Rewind) -> bool {
        let me = self.links.me();
        let mut taken = self.local.as_ref().is_some_and(|local| local.try_send(rewind).is_ok());
        for node in (self.routers)().into_iter().filter(|node| *node != me) {
            taken |= self.links.rewind(node, rewind);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::frame::WireRewind;
    use super::*;

    fn rewind(hole: u64) -> Rewind {
        Rewind { hole, ..WireRewind::default().rewind().unwrap() }
    }

    proptest! {
        #[test]
        fn nothing_is_sent_twice_in_a_second_and_everything_after(holes in proptest::collection::vec((0..5_u64, 0..700_u64), 0..50)) {
            let (mut recent, mut now) = (Recent::default(), Instant::now());
            let mut sent = std::collections::HashMap::new();
            for (hole, later) in holes {
                now += Duration::from_millis(later);
                let expected = sent.get(&hole).is_some_and(|at| now.duration_since(*at) < WINDOW);
                prop_assert_eq!(recent.has(&rewind(hole), now), expected);
                if !expected {
                    recent.note(rewind(hole), now);
                    sent.insert(hole, now);
                }
            }
        }
    }

    #[test]
    fn memory_is_bounded() {
        let (mut recent, now) = (Recent::default(), Instant::now());
        for hole in 0..10_000 {
            recent.note(rewind(hole), now);
        }
        assert_eq!(recent.0.len(), WINDOW_MAX);
        assert!(recent.has(&rewind(9_999), now) && !recent.has(&rewind(0), now));
    }
}
