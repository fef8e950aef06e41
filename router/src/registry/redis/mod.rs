//! The registry of a cluster, in Redis: one hash for each user (`prefix:{u:ID}`), one field for each device, so that one function call compares
//! and sets. An attached device costs about 150 bytes there.
//!
//! Redis may have lost its last writes, everything, or come back as it was an hour ago. So an entry counts only while the boot it names lives
//! by the [`Members`] this process knows; who is not sure filters nothing. A dead boot's entries are removed when they are met.
//!
//! While a part of a Redis Cluster is down, a look-up answers for the users of the other parts; those of this one are nowhere for so long.
//!
//! A key lives a day after its last registration: a dead cluster leaves nothing for ever. A gateway enters its sessions again at least twice in
//! that time, and after each loss, by [`Registry::register_all`].
//!
//! **A registration whose answer is late** (the caller has gone on without) may still take effect: it then names a session that doesn't
//! hold it. That costs a push into the void, by which the gateway learns of it
//! and removes it ([`Registry::entries`]).

mod budgets;
mod config;
mod connection;
mod link;
mod script;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use metrics::counter;
use parking_lot::RwLock;
use protocol::{DeviceName, UserId};
use redis::{FromRedisValue, Value};

pub use config::RedisConfig;
pub(crate) use link::KEPT_S;
pub use link::RedisLink;
pub(crate) use script::Script;

use super::{NodeId, Nodes, Registered, Registration, Registry, RegistryError};
use crate::members::Members;

/// Buried boots that are remembered here; the oldest is forgotten first. In Redis they are kept as long as a silent member.
const BURIED_MAX: usize = 1024;
/// Users whose void entries one look-up removes; the rest is met again.
const SWEEP_MAX: usize = 64;
/// Entries restored in one call, so that it fits its time.
const RESTORE_CHUNK: usize = 256;
/// Counters above this are not ours.
const COUNTER_MAX: u64 = 9_000_000_000_000_000;

/// The registry in Redis. All calls end within the call timeout of [`RedisConfig`].
pub struct RedisRegistry {
    link: RedisLink,
    members: Members,
    scripts: Arc<Scripts>,
    /// The highest counter met: given along, so that counters grow also over a flush or a clock that went back.
    highest: AtomicU64,
    buried: RwLock<VecDeque<NodeId>>,
    /// A removal of void entries is under way; there is one at a time.
    sweeping: Arc<AtomicBool>,
}

struct Scripts {
    register: Script,
    remove: Script,
    sweep: Script,
    restore: Script,
    charge: Script,
}

impl RedisRegistry {
    /// A registry over this link; `members` says which boots live ([`Members::unknown`]: nothing is filtered).
    pub fn new(link: RedisLink, members: Members) -> Self {
        let scripts = Scripts {
            register: Script::new(script::REGISTER),
            remove: Script::new(script::REMOVE),
            sweep: Script::new(script::SWEEP),
            restore: Script::new(script::RESTORE),
            charge: Script::new(script::CHARGE),
        };
        Self {
            link,
            members,
            scripts: Arc::new(scripts),
            highest: AtomicU64::new(0),
            buried: RwLock::default(),
            sweeping: Arc::default(),
        }
    }

    fn key(&self, user: UserId) -> String {
        format!("{}:{{u:{}}}", self.link.config().prefix, user.get())
    }

    fn is_void(&self, registration: Registration) -> bool {
        self.buried.read().contains(&registration.node) || self.members.is_void(registration)
    }

    fn refuse_buried(&self, node: NodeId) -> Result<(), RegistryError> {
        if self.buried.read().contains(&node) {
            return Err(RegistryError(format!("boot {} of node {} is buried", node.boot, node.node)));
        }
        Ok(())
    }

    fn met(&self, counter: u64) {
        if counter < COUNTER_MAX {
            self.highest.fetch_max(counter, Ordering::Relaxed);
        }
    }

    /// Removes void entries in the background, unless that is already going on.
    fn sweep(&self, void: Vec<(String, Vec<String>)>) {
        if void.is_empty() || self.sweeping.swap(true, Ordering::AcqRel) {
            return;
        }
        let (link, scripts, sweeping) = (self.link.clone(), Arc::clone(&self.scripts), Arc::clone(&self.sweeping));
        tokio::spawn(async move {
            // a failure is no matter: they are met again
            let _ = link.scripts(&scripts.sweep, &void).await;
            sweeping.store(false, Ordering::Release);
        });
    }

    async fn restore_chunk(&self, entries: &[(UserId, DeviceName, Registration)]) -> Result<Vec<Registration>, RegistryError> {
        let mut calls = Vec::with_capacity(entries.len());
        for (user, device, registration) in entries {
            self.refuse_buried(registration.node)?;
            if registration.counter > COUNTER_MAX {
                return Err(RegistryError(format!("counter {} is not of this registry", registration.counter)));
            }
            self.met(registration.counter);
            let arguments =
                vec![device.to_string(), text_of(*registration), registration.counter.to_string(), KEPT_S.to_string()];
            calls.push((self.key(*user), arguments));
        }
        let answers = self.link.scripts(&self.scripts.restore, &calls).await?;
        let stands = answers.into_iter().map(|answer| {
            let text: String = parsed(answer)?;
            registration_of(&text).ok_or_else(unreadable)
        });
        stands.collect()
    }

    /// Takes entries of dead boots out of the way of those they wrongly beat. Returns whether there were any.
    async fn clear_void(
        &self,
        entries: &[(UserId, DeviceName, Registration)],
        stands: &[Registration],
    ) -> Result<bool, RegistryError> {
        let beaten = entries.iter().zip(stands).filter(|((_, _, mine), stands)| *stands != mine && self.is_void(**stands));
        let calls: Vec<_> =
            beaten.map(|((user, device, _), stands)| (self.key(*user), vec![device.to_string(), text_of(*stands)])).collect();
        if !calls.is_empty() {
            self.link.scripts(&self.scripts.remove, &calls).await?;
        }
        Ok(!calls.is_empty())
    }
}

fn unreadable() -> RegistryError {
    RegistryError("an answer of Redis is unreadable".into())
}

fn parsed<T: FromRedisValue>(value: Value) -> Result<T, RegistryError> {
    redis::from_redis_value(value).map_err(|_| unreadable())
}

/// `node:boot`; the boot in hexadecimal.
pub(crate) fn text_of_node(node: NodeId) -> String {
    format!("{}:{:016x}", node.node, node.boot)
}

/// The node in a text of [`text_of_node`].
pub(crate) fn node_of(text: &str) -> Option<NodeId> {
    let (node, boot) = text.split_once(':')?;
    Some(NodeId { node: node.parse().ok()?, boot: u64::from_str_radix(boot, 16).ok()? })
}

/// `node:boot:counter`.
fn text_of(registration: Registration) -> String {
    format!("{}:{}", text_of_node(registration.node), registration.counter)
}

fn registration_of(text: &str) -> Option<Registration> {
    let (node, counter) = text.rsplit_once(':')?;
    Some(Registration { node: node_of(node)?, counter: counter.parse().ok()? })
}

#[async_trait]
impl Registry for RedisRegistry {
    async fn register_within(
        &self,
        user: UserId,
        device: &DeviceName,
        node: NodeId,
        devices_max: usize,
    ) -> Result<Option<Registered>, RegistryError> {
        self.refuse_buried(node)?;
        let (key, highest) = (self.key(user), self.highest.load(Ordering::Relaxed).to_string());
        let arguments = [device.as_str(), &text_of_node(node), &highest, &KEPT_S.to_string(), &devices_max.to_string()];
        // once more when entries of dead boots were in the way
        for _ in 0..2 {
            let answer = self.link.script(&self.scripts.register, &[&key], &arguments).await?;
            let (counter, replaced, others): (String, String, Vec<String>) = parsed(answer)?;
            if !counter.is_empty() {
                let counter = counter.parse().map_err(|_| unreadable())?;
                self.met(counter);
                let replaced = registration_of(&replaced);
                return Ok(Some(Registered { registration: Registration { node, counter }, replaced }));
            }
            let is_void = |text: &String| registration_of(text).is_some_and(|registration| self.is_void(registration));
            let void: Vec<_> = others.into_iter().filter(is_void).collect();
            if void.is_empty() {
                break;
            }
            self.link.scripts(&self.scripts.sweep, &[(key.clone(), void)]).await?;
        }
        Ok(None)
    }

    async fn deregister(&self, user: UserId, device: &DeviceName, registration: Registration) -> Result<bool, RegistryError> {
        let arguments = [device.as_str(), &text_of(registration)];
        let answer = self.link.script(&self.scripts.remove, &[&self.key(user)], &arguments).await?;
        parsed::<u64>(answer).map(|gone| gone > 0)
    }

    async fn entries(&self, user: UserId) -> Result<Vec<(DeviceName, Registration)>, RegistryError> {
        let answer = self.link.one(redis::cmd("HGETALL").arg(self.key(user))).await?;
        let texts: Vec<(String, String)> = parsed(answer)?;
        let entry = |(device, text): &(String, String)| Some((device.parse().ok()?, registration_of(text)?));
        Ok(texts.iter().filter_map(entry).collect())
    }

    async fn nodes(&self, users: &[UserId]) -> Result<Vec<Nodes>, RegistryError> {
        let reads: Vec<_> = users.iter().map(|user| redis::cmd("HVALS").arg(self.key(*user)).to_owned()).collect();
        let answers = match reads.as_slice() {
            [] => return Ok(Vec::new()),
            [read] => vec![Some(self.link.one(read).await?)],
            _ => self.link.each(reads).await?,
        };
        let unanswered = answers.iter().filter(|answer| answer.is_none()).count();
        if unanswered > 0 {
            counter!("switchboard_registry_unanswered_total").increment(unanswered as u64);
        }
        let mut found = Vec::with_capacity(users.len());
        let mut sweep = Vec::new();
        for (user, answer) in users.iter().zip(answers) {
            let mut nodes = Nodes::new();
            let mut void = Vec::new();
            for text in answer.map_or(Ok(Vec::new()), parsed::<Vec<String>>)? {
                match registration_of(&text) {
                    Some(registration) if self.is_void(registration) => void.push(text),
                    Some(registration) if !nodes.contains(&registration.node) => nodes.push(registration.node),
                    Some(_) | None => {}
                }
            }
            if !void.is_empty() && sweep.len() < SWEEP_MAX {
                sweep.push((self.key(*user), void));
            }
            found.push(nodes);
        }
        self.sweep(sweep);
        Ok(found)
    }

    async fn bury(&self, node: NodeId) -> Result<(), RegistryError> {
        {
            let mut buried = self.buried.write();
            if !buried.contains(&node) {
                buried.push_back(node);
            }
            if buried.len() > BURIED_MAX {
                buried.pop_front();
            }
        }
        let key = self.link.config().members_key("buried");
        crate::members::bury(&self.link, &key, node).await
    }

    async fn restore(
        &self,
        user: UserId,
        device: &DeviceName,
        registration: Registration,
    ) -> Result<Registration, RegistryError> {
        let stands = self.register_all(&[(user, device.clone(), registration)]).await?;
        stands.first().copied().ok_or_else(unreadable)
    }

    async fn register_all(&self, entries: &[(UserId, DeviceName, Registration)]) -> Result<Vec<Registration>, RegistryError> {
        let mut all = Vec::with_capacity(entries.len());
        for chunk in entries.chunks(RESTORE_CHUNK) {
            let mut stands = self.restore_chunk(chunk).await?;
            if self.clear_void(chunk, &stands).await? {
                stands = self.restore_chunk(chunk).await?;
            }
            all.extend(stands);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_for_each_entry() {
        for (node, boot, counter) in [(0, 0, 0), (u16::MAX, u64::MAX, COUNTER_MAX), (7, 0xab, 1_700_000_000_000_000)] {
            let registration = Registration { node: NodeId { node, boot }, counter };
            assert_eq!(registration_of(&text_of(registration)), Some(registration));
        }
        for bad in ["", "1", "1:2", "x:1:1", "1:zz:1", "1:2:-1", "70000:1:1"] {
            assert_eq!(registration_of(bad), None, "{bad}");
        }
    }
}
