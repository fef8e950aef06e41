//! The functions that run inside Redis, each on one slot, each one step. Numbers are microseconds since 1970 or counters above them: both fit
//! a double exactly until 2255. They need Redis 5 or newer (effects are replicated, not scripts).

use redis::Cmd;

/// A script and the hash Redis knows it by.
pub(crate) struct Script {
    code: &'static str,
    hash: String,
}

impl Script {
    pub(crate) fn new(code: &'static str) -> Self {
        Self { code, hash: redis::Script::new(code).get_hash().to_owned() }
    }

    /// A call that fails with NOSCRIPT when the server doesn't know the script.
    pub(crate) fn by_hash(&self, keys: &[&str], arguments: &[&str]) -> Cmd {
        call("EVALSHA", &self.hash, keys, arguments)
    }

    /// A call that also teaches the server the script.
    pub(crate) fn in_full(&self, keys: &[&str], arguments: &[&str]) -> Cmd {
        call("EVAL", self.code, keys, arguments)
    }
}

fn call(name: &str, script: &str, keys: &[&str], arguments: &[&str]) -> Cmd {
    redis::cmd(name).arg(script).arg(keys.len()).arg(keys).arg(arguments).to_owned()
}

/// `KEYS` user; `ARGV` device, place, highest counter the caller has seen, seconds kept, devices the user may have. Enters the device in place of what was
/// there; returns the counter and what was replaced. If it was not there and there are so many others: nothing, nothing, and those. The counter is the larger of the time, the old entry's + 1 and the caller's + 1 (a hybrid logical
/// clock): it grows for each device though the entry was removed, Redis was flushed, or its clock went back.
pub(super) const REGISTER: &str = r"
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local counter = now
local old = redis.call('HGET', KEYS[1], ARGV[1])
if not old and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[5]) then
  return {'', '', redis.call('HVALS', KEYS[1])}
end
local past = old and tonumber(string.match(old, ':(%d+)$') or '0') or 0
if past >= counter then counter = past + 1 end
if tonumber(ARGV[3]) >= counter then counter = tonumber(ARGV[3]) + 1 end
if counter > 9000000000000000 then counter = now end
local text = string.format('%.0f', counter)
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ':' .. text)
redis.call('EXPIRE', KEYS[1], ARGV[4])
return {text, old or '', {}}
";

/// `KEYS` user; `ARGV` pairs of device and entry. Removes each entry that is exactly this; says how many were.
pub(super) const REMOVE: &str = r"
local gone = 0
for i = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then
    redis.call('HDEL', KEYS[1], ARGV[i])
    gone = gone + 1
  end
end
return gone
";

/// `KEYS` a budget; `ARGV` what is charged, the time it was used in, what may be drawn in advance: microseconds. Returns by how much the budget is
/// overdrawn now. It holds the time at which everything drawn is paid (GCRA's theoretical arrival time), at most a minute ahead.
pub(super) const CHARGE: &str = r"
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local paid = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now - ARGV[2])
paid = math.min(paid + ARGV[1], now + 60000000)
redis.call('SET', KEYS[1], string.format('%.0f', paid), 'PX', math.floor(math.max(0, paid - now) / 1000) + 1000)
return string.format('%.0f', math.max(0, paid - now - ARGV[3]))
";

/// `KEYS` user; `ARGV` entries. Removes every device that has exactly one of these.
pub(super) const SWEEP: &str = r"
local void = {}
for i = 1, #ARGV do void[ARGV[i]] = true end
local all = redis.call('HGETALL', KEYS[1])
local gone = 0
for i = 1, #all, 2 do
  if void[all[i + 1]] then
    redis.call('HDEL', KEYS[1], all[i])
    gone = gone + 1
  end
end
return gone
";

/// `KEYS` user; `ARGV` device, entry, its counter, seconds kept. Enters exactly this unless a newer entry is there; returns what stands.
/// Of two entries with one counter the greater boot wins, in every process alike.
pub(super) const RESTORE: &str = r"
local old = redis.call('HGET', KEYS[1], ARGV[1])
local stands = ARGV[2]
if old then
  local past = tonumber(string.match(old, ':(%d+)$') or '0')
  local mine = tonumber(ARGV[3])
  local boot = string.match(old, ':(%x+):') or ''
  if past > mine or (past == mine and boot > string.match(stands, ':(%x+):')) then stands = old end
end
if stands ~= old then redis.call('HSET', KEYS[1], ARGV[1], stands) end
redis.call('EXPIRE', KEYS[1], ARGV[4])
return stands
";
