//! The lease of a process and what follows from it: the loops of the router's `members::redis` and the server's `follow_members`, over the
//! simulated Redis. What an answer means judges the router's own [`Judge`].

use std::sync::Arc;
use std::time::Duration;

use router::members::lease::{Answer, Judge};
use router::members::reach::Observer;
use router::members::{Member, Publisher, Role};
use tokio::time::{Instant, sleep};

use super::{Node, roles};
use crate::faults::Redis;
use crate::process::{Part, Process};
use crate::sim::Sim;

/// How often a lease is renewed.
const RENEW_EVERY: Duration = Duration::from_millis(500);
/// The log, in what members say.
pub(super) const LOG: &str = "log";
/// The databases: processes here are cut off from all or from none.
pub(super) const DATABASES: &str = "databases";

/// Renews until the process dies.
pub(super) async fn renew(redis: Arc<Redis>, process: Arc<Process>, (mut me, publisher): (Member, Publisher), sim: Arc<Sim>) {
    let mut observer = Observer::default();
    let mut judge = Judge::new(Instant::now());
    let (mut known_us, mut request) = (0, 0);
    loop {
        let began = Instant::now();
        request += 1;
        let parts = [(LOG, Part::Log), (DATABASES, Part::Store)].map(|(name, part)| (name.to_owned(), !process.is_cut(part)));
        me.reach = Some(observer.look(&parts, began, judge.heard_us()));
        let view = match call(&redis, &process, &sim, (&me, known_us, request)).await {
            Some(answer) => {
                known_us = answer.now_us;
                judge.heard(answer, Instant::now()).clone()
            }
            None => judge.missed(Instant::now()).clone(),
        };
        publisher.publish(view, judge.heard_us());
        sleep(RENEW_EVERY.saturating_sub(began.elapsed())).await;
    }
}

async fn call(redis: &Redis, process: &Process, sim: &Sim, (me, known_us, request): (&Member, u64, u64)) -> Option<Answer> {
    let reaches = process.reaches(Part::Redis).await;
    sleep(sim.delay()).await;
    if !reaches || sim.strikes(sim.weather.registry_fails) {
        sim.saw("lease not renewed");
        return None;
    }
    let answer = redis.renew(me, known_us, request);
    sleep(sim.delay()).await;
    process.gate().await;
    Some(answer)
}

/// Links with gateways as soon as they are members, and has the sessions entered again when the registry may have forgotten them.
pub(super) async fn follow_members(node: Arc<Node>) {
    let mut changes = node.members.watch();
    let mut in_doubt = false;
    loop {
        let view = changes.borrow_and_update().clone();
        node.process.gate().await;
        let doubts = view.hold_off || view.unreachable_since.is_some() || !view.known;
        if view.hold_off && view.known {
            node.world.sim.saw("hold-off: nothing new is taken");
        }
        if (in_doubt || view.hold_off)
            && view.known
            && view.unreachable_since.is_none()
            && let Some(gateway) = &node.gateway
        {
            gateway.sessions.registry_forgot.notify_one();
        }
        in_doubt = doubts;
        if roles(node.id.node).storage {
            view.live(Role::Gateway).into_iter().for_each(|gateway| node.links.connect(gateway));
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}
