//! Which engines this process reaches: readiness is told, and the other processes, who take the partitions that need what it does not reach.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use gateway::node::now_ms;
use router::members::reach::{Observer, Reach};
use tokio::time::Instant;

use super::{Process, Role, watch};

/// How often it is looked and told.
const TELL_EVERY: Duration = Duration::from_millis(500);
/// The log, in what members say.
pub(super) const LOG: &str = "log";

/// A database, in what members say.
pub(super) fn database(name: &str) -> String {
    format!("database {name}")
}

/// What this process says of what it reaches.
#[derive(Default)]
struct Word {
    observer: Observer,
    lost: Vec<String>,
}

impl Word {
    fn look(&mut self, process: &Process) -> Reach {
        let databases = process.store.reachable().into_iter().map(|(name, up)| (database(&name), up));
        let parts: Vec<_> = std::iter::once((LOG.to_owned(), process.log.is_reachable())).chain(databases).collect();
        let reach = self.observer.look(&parts, Instant::now(), process.members.heard_us());
        let lost: Vec<_> = reach.lost().into_iter().map(str::to_owned).collect();
        if lost != self.lost {
            if lost.is_empty() {
                tracing::info!("this process reaches everything again");
            } else {
                tracing::warn!(
                    ?lost,
                    "this process says that it does not reach these: others that do, if any, take what needs them"
                );
            }
            self.lost = lost;
        }
        let away = reach.away();
        for (name, _) in &parts {
            let value = if away.contains(&name.as_str()) { 0.0 } else { 1.0 };
            metrics::gauge!("switchboard_part_reached", "part" => name.clone()).set(value);
        }
        reach
    }
}

/// Tells readiness which engine is away and since when, and everybody which partitions of this process are in trouble, for as long as it runs.
pub(super) async fn tell_parts(process: Arc<Process>) {
    let mut away: HashMap<String, u64> = HashMap::new();
    let mut refused = None;
    let mut word = Word::default();
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
        process.voice.say(process.troubled.all(), word.look(&process));
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
