//! The lease entry of this process in Redis: one call every half second writes it and reads all others.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use redis::Value;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::lease::{Answer, Judge, NODE_LEASE_US, Seen};
use super::reach::Reach;
use super::{Member, Members, Publisher, Role, Roles, Troubles, View};
use crate::registry::redis::{KEPT_S, RedisLink, Script, node_of, text_of_node};
use crate::registry::{NodeId, RegistryError};

/// How often a lease is renewed.
pub const RENEW_EVERY: Duration = Duration::from_millis(500);
/// Silent members are forgotten after this, microseconds.
const FORGET_US: u64 = 60_000_000;
/// Buried boots that are kept.
const BURIED_MAX: i64 = 128;

/// `KEYS` members, born, cluster, buried; `ARGV` own field, own text (empty: leave and be buried), own last renewal as far as known, cluster
/// id, microseconds until a silent member is forgotten, seconds kept. Returns now, born, own renewal before, (field, seen, since, text)*, buried*.
///
/// The store counts as born when it was empty, when it lost a renewal that this process knows was made, when its clock went back, and when it
/// was away for so long that all are forgotten (nobody has forgotten this process, yet it was silent for that long).
const RENEW: &str = r"
local mark = redis.call('GET', KEYS[3])
if mark and mark ~= ARGV[4] then return redis.error_reply('FOREIGN ' .. mark .. ', this is ' .. ARGV[4]) end
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local forget = tonumber(ARGV[5])
local known = tonumber(ARGV[3])
local born = tonumber(redis.call('GET', KEYS[2]) or '0')
local reset = born == 0 or born > now
local before, mine = 0, now
local list = {}
local all = redis.call('HGETALL', KEYS[1])
local function text(n) return string.format('%.0f', n) end
for i = 1, #all, 2 do
  local seen, since, what = string.match(all[i + 1], '^(%d+) (%d+) (.*)$')
  seen, since = tonumber(seen or '0'), tonumber(since or '0')
  if seen > now then
    reset = true
    seen = now
    since = math.min(since, now)
    redis.call('HSET', KEYS[1], all[i], text(seen) .. ' ' .. text(since) .. ' ' .. what)
  end
  if all[i] == ARGV[1] then
    before, mine = seen, since
  elseif now - seen > forget then
    redis.call('HDEL', KEYS[1], all[i])
  else
    list[#list + 1] = all[i]
    list[#list + 1] = text(seen)
    list[#list + 1] = text(since)
    list[#list + 1] = what
  end
end
if known > 0 and before < known and now - known < forget then reset = true end
if before > 0 and now - before > forget then reset = true end
if reset then born = now end
if ARGV[2] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
  redis.call('ZADD', KEYS[4], now, ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], text(now) .. ' ' .. text(mine) .. ' ' .. ARGV[2])
  list[#list + 1] = ARGV[1]
  list[#list + 1] = text(now)
  list[#list + 1] = text(mine)
  list[#list + 1] = ARGV[2]
end
redis.call('SET', KEYS[2], text(born), 'EX', ARGV[6])
redis.call('SET', KEYS[3], ARGV[4], 'EX', ARGV[6])
redis.call('EXPIRE', KEYS[1], ARGV[6])
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now - 10 * forget)
return {text(now), text(born), text(before), list, redis.call('ZRANGE', KEYS[4], 0, -1)}
";

/// What a member says of itself, beside its node.
#[derive(Serialize, Deserialize)]
struct Text {
    name: String,
    roles: Roles,
    address: Option<std::net::SocketAddr>,
    version: String,
    started_ms: u64,
    /// Builds before this one say nothing of it.
    #[serde(default, skip_serializing_if = "Troubles::is_empty")]
    troubles: Troubles,
    #[serde(default)]
    reach: Option<Reach>,
}

/// Says of this process's partitions and of what it reaches what the others are to know, with each renewal. Clones speak for the same process.
#[derive(Clone)]
pub struct Voice(Arc<Lease>);

impl Voice {
    /// From now on these are in trouble, and no others, and this is what it reaches. Told at once when it changes.
    pub fn say(&self, troubles: Troubles, reach: Reach) {
        let mut me = self.0.me.lock();
        let reach = Some(reach);
        if (&me.troubles, &me.reach) != (&troubles, &reach) {
            (me.troubles, me.reach) = (troubles, reach);
            drop(me);
            self.0.changed.notify_one();
        }
    }
}

/// This process's place in the cluster: renewed until it is dropped (then it expires) or [`Membership::leave`] is called.
pub struct Membership {
    lease: Arc<Lease>,
    members: Members,
    renewing: JoinHandle<()>,
}

struct Lease {
    link: RedisLink,
    script: Script,
    keys: [String; 4],
    me: Mutex<Member>,
    changed: Notify,
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

impl Membership {
    /// Begins to renew and returns at once; the view is unknown until Redis has answered. Needs a runtime.
    pub fn join(link: RedisLink, me: Member) -> Self {
        let keys = ["members", "born", "cluster", "buried"].map(|what| link.config().members_key(what));
        let script = Script::new(RENEW);
        let lease = Arc::new(Lease { link, script, keys, me: Mutex::new(me), changed: Notify::new() });
        let (publisher, members) = Members::channel();
        let renewing = tokio::spawn(renew(Arc::clone(&lease), publisher));
        Self { lease, members, renewing }
    }

    /// The view, shared.
    pub fn members(&self) -> Members {
        self.members.clone()
    }

    /// By which this process says what is wrong with its partitions.
    pub fn voice(&self) -> Voice {
        Voice(Arc::clone(&self.lease))
    }

    /// Drops a role at once: others take over without waiting for the lease to end.
    pub fn leave_role(&self, role: Role) {
        {
            let mut me = self.lease.me.lock();
            me.roles = me.roles.without(role);
        }
        self.lease.changed.notify_one();
    }

    /// Drops every role at once. Registrations of this process still count, until [`Self::leave`].
    pub fn leave_all(&self) {
        self.lease.me.lock().roles = Roles::default();
        self.lease.changed.notify_one();
    }

    /// Leaves the cluster: what is still registered here is void from now on. Waits for Redis no longer than a call may take.
    ///
    /// # Errors
    /// [`RegistryError`] when Redis did not answer; then the lease just ends.
    pub async fn leave(self) -> Result<(), RegistryError> {
        self.renewing.abort();
        let field = text_of_node(self.lease.me.lock().node);
        self.lease.call(&field, "", 0).await.map(drop)
    }
}

impl Lease {
    async fn call(&self, field: &str, text: &str, known_us: u64) -> Result<Value, RegistryError> {
        let keys = self.keys.each_ref().map(String::as_str);
        let (known, forget, kept) = (known_us.to_string(), FORGET_US.to_string(), KEPT_S.to_string());
        let cluster = self.link.config().cluster_id.as_str();
        self.link.script(&self.script, &keys, &[field, text, &known, cluster, &forget, &kept]).await
    }

    async fn renew(&self, request: u64, known_us: u64) -> Result<Answer, RegistryError> {
        let (field, text) = {
            let me = self.me.lock();
            (text_of_node(me.node), text_of(&me))
        };
        read(request, self.call(&field, &text, known_us).await?)
    }
}

/// Renews until it is aborted.
async fn renew(lease: Arc<Lease>, publisher: Publisher) {
    let mut judge = Judge::new(Instant::now());
    let mut known_us = 0;
    let mut request = 0;
    loop {
        let began = Instant::now();
        request += 1;
        let view = match lease.renew(request, known_us).await {
            Ok(answer) => {
                known_us = answer.now_us;
                judge.heard(answer, Instant::now()).clone()
            }
            Err(why) => {
                // the link says once that Redis is away
                tracing::debug!(%why, "lease not renewed");
                judge.missed(Instant::now()).clone()
            }
        };
        publisher.publish(view, judge.heard_us());
        let rest = RENEW_EVERY.saturating_sub(began.elapsed());
        let _ = timeout(rest, lease.changed.notified()).await;
    }
}

fn text_of(me: &Member) -> String {
    let Member { node: _, name, roles, address, version, started_ms, troubles, reach } = me.clone();
    let text = Text { name, roles, address, version, started_ms, troubles, reach };
    serde_json::to_string(&text).expect("strings, flags and numbers have a JSON form")
}

/// Reads an answer of the script. Entries that this build cannot read are left out.
fn read(request: u64, answer: Value) -> Result<Answer, RegistryError> {
    type Raw = (u64, u64, u64, Vec<(String, u64, u64, String)>, Vec<String>);
    let (now_us, born_us, before_us, members, buried): Raw =
        redis::from_redis_value(answer).map_err(|_| RegistryError("an answer of the lease store is unreadable".into()))?;
    let seen = |(field, seen_us, since_us, text): (String, u64, u64, String)| {
        let Text { name, roles, address, version, started_ms, troubles, reach } = serde_json::from_str(&text).ok()?;
        let member = Member { node: node_of(&field)?, name, roles, address, version, started_ms, troubles, reach };
        Some(Seen { member, seen_us, since_us })
    };
    let members = members.into_iter().filter_map(seen).collect();
    let buried = buried.iter().filter_map(|text| node_of(text)).collect();
    Ok(Answer { request, now_us, born_us, before_us, members, buried })
}

/// `KEYS` members, born, cluster; `ARGV` cluster id. As [`RENEW`], and changes nothing.
const LOOK: &str = r"
local mark = redis.call('GET', KEYS[3])
if mark and mark ~= ARGV[1] then return redis.error_reply('FOREIGN ' .. mark .. ', this is ' .. ARGV[1]) end
local t = redis.call('TIME')
local list = {}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local seen, since, what = string.match(all[i + 1], '^(%d+) (%d+) (.*)$')
  if seen then
    list[#list + 1] = all[i]
    list[#list + 1] = seen
    list[#list + 1] = since
    list[#list + 1] = what
  end
end
return {string.format('%.0f', t[1] * 1000000 + t[2]), redis.call('GET', KEYS[2]) or '0', '0', list, {}}
";

/// Who is in the cluster now, without joining it: for the command line.
///
/// # Errors
/// [`RegistryError`] when Redis does not answer, or is another cluster's.
pub async fn look(link: &RedisLink) -> Result<View, RegistryError> {
    let keys = ["members", "born", "cluster"].map(|what| link.config().members_key(what));
    let keys = keys.each_ref().map(String::as_str);
    let answer = link.script(&Script::new(LOOK), &keys, &[link.config().cluster_id.as_str()]).await?;
    let mut answer = read(1, answer)?;
    let now_us = answer.now_us;
    answer.members.retain(|seen| now_us.saturating_sub(seen.seen_us) < NODE_LEASE_US);
    Ok(Judge::new(Instant::now()).heard(answer, Instant::now()).clone())
}

/// Tells everybody that a boot is dead.
pub(crate) async fn bury(link: &RedisLink, key: &str, node: NodeId) -> Result<(), RegistryError> {
    let field = text_of_node(node);
    link.script(&Script::new(BURY), &[key], &[&field, &BURIED_MAX.to_string(), &KEPT_S.to_string()]).await.map(drop)
}

/// `KEYS` buried; `ARGV` field, most that are kept, seconds kept.
const BURY: &str = r"
local t = redis.call('TIME')
redis.call('ZADD', KEYS[1], t[1] * 1000000 + t[2], ARGV[1])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - tonumber(ARGV[2]))
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
";
