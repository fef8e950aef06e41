//! Which engines this process reaches: readiness is told, and the other processes, who take its partitions when they reach what it does not.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use gateway::node::now_ms;
use router::members::fitness::{Fitness, Unfit};
use tokio::time::Instant;

use super::{Process, Role, watch};

/// How often it is looked and told.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// The fitness of this process for its roles.
#[derive(Default)]
struct Fit {
    router: Fitness,
    storage: Fitness,
    said: Unfit,
}

impl Fit {
    fn look(&mut self, process: &Process) -> Unfit {
        let (now, now_us) = (Instant::now(), process.members.heard_us());
        let log = process.log.is_reachable();
        let databases = process.store.reachable().iter().all(|(_, up)| *up);
        let unfit = Unfit {
            router: self.router.look(log, now, now_us).filter(|_| process.cluster.has(Role::Router)),
            storage: self.storage.look(log && databases, now, now_us).filter(|_| process.cluster.has(Role::Storage)),
        };
        if unfit != self.said {
            if unfit.is_fit() {
                tracing::info!("this process can fill its roles again");
            } else {
                let (router, storage) = (unfit.router.is_some(), unfit.storage.is_some());
                tracing::error!(
                    router,
                    storage,
                    "this process does not reach what its roles work on: others that do take its partitions"
                );
            }
            self.said = unfit;
        }
        for (role, since) in [("router", unfit.router), ("storage", unfit.storage)] {
            metrics::gauge!("switchboard_role_unfit", "role" => role).set(if since.is_some() { 1.0 } else { 0.0 });
        }
        unfit
    }
}

/// Tells readiness which engine is away and since when, and everybody which partitions of this process are in trouble, for as long as it runs.
pub(super) async fn tell_parts(process: Arc<Process>) {
    let mut away: HashMap<String, u64> = HashMap::new();
    let mut refused = None;
    let mut fit = Fit::default();
    let mut every = tokio::time::interval(TELL_EVERY);
    loop {
        every.tick().await;
        let mut parts = vec![("Kafka".to_owned(), process.log.is_reachable())];
        parts.push((
            gateway::canary::REGISTRY.to_owned(),
            process.members.view().unreachable_since.is_none() && process.members.view().known,
        ));
        parts.extend(process.store.reachable().into_iter().map(|(name, up)| (format!("Postgres {name}"), up)));
        for (name, up) in parts {
            let why = if up {
                away.remove(&name);
                None
            } else {
                let since = *away.entry(name.clone()).or_insert_with(now_ms);
                Some(format!("away for {} s", now_ms().saturating_sub(since) / 1000))
            };
            process.gateway.health.part(&name, why);
        }
        process.voice.say(process.troubled.all(), fit.look(&process));
        if process.cluster.has(Role::Gateway) {
            let now = watch::refused(process.members.view().troubles());
            if now != refused {
                match &now {
                    Some(what) => tracing::error!(what, "sends are refused where they would not get through"),
                    None => tracing::info!("sends are taken everywhere again"),
                }
                process.gateway.health.part("sends", now.clone());
                refused = now;
            }
        }
    }
}
