//! Which engines this process reaches: readiness is told, and the other processes, who take the partitions that need what it does not reach.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use gateway::node::now_ms;
use router::assign::Kind;
use router::members::reach::{Observer, Reach};
use tokio::time::Instant;

use super::shares::{LOG, database};
use super::{Process, Role, watch};

/// How often it is looked and told.
const TELL_EVERY: Duration = Duration::from_millis(500);
/// What this process says of what it reaches.
#[derive(Default)]
struct Word {
    observer: Observer,
    lost: Vec<String>,
}

impl Word {
    fn look(&mut self, parts: &[(String, bool)], now_us: u64) -> Reach {
        let reach = self.observer.look(parts, Instant::now(), now_us);
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
        for (name, _) in parts {
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
        let (log, databases, view) = (process.log.is_reachable(), process.store.reachable(), process.members.view());
        let redis = view.unreachable_since.is_none() && view.known;
        let mut parts = vec![("Kafka".to_owned(), log), (gateway::canary::REGISTRY.to_owned(), redis)];
        parts.extend(databases.iter().map(|(name, up)| (format!("Postgres {name}"), *up)));
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
        for kind in [Kind::Messages, Kind::Mailbox] {
            let behind = process.log.behind(kind.topic());
            metrics::gauge!("switchboard_partitions_behind", "topic" => kind.topic().name()).set(behind.len() as f64);
            process.troubled.set_behind(kind, behind);
        }
        let databases = databases.iter().map(|(name, up)| (database(name), *up));
        let reached: Vec<_> = std::iter::once((LOG.to_owned(), log)).chain(databases).collect();
        process.voice.say(process.troubled.all(), word.look(&reached, process.members.heard_us()));
        if process.cluster.has(Role::Gateway) {
            let now = watch::refused(view.troubles());
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
