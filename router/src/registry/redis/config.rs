//! Where Redis is, and what this cluster is called in it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use redis::cluster::ClusterClient;
use redis::{ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo};
use serde::Deserialize;

use crate::registry::RegistryError;

/// Bytes of a prefix or of a cluster's id.
const NAME_BYTES_MAX: usize = 64;
/// Shortest and longest time a setting may ask for.
const TIMEOUT_MS: std::ops::RangeInclusive<u64> = 10..=60_000;

/// Settings of Redis. Exactly one of `url` (a single Redis), `sentinels` and `cluster` is given. No TLS.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RedisConfig {
    /// A single Redis: `redis://host:port/db`.
    pub url: Option<String>,
    /// Sentinels, each `redis://host:port`; they say which Redis is the master.
    pub sentinels: Vec<String>,
    /// What the sentinels call the master.
    pub master: String,
    /// Database number behind Sentinel.
    pub db: i64,
    /// Some nodes of a Redis Cluster, each `redis://host:port`.
    pub cluster: Vec<String>,
    /// User, with `password`; not used towards sentinels.
    pub username: Option<String>,
    /// Password. Better in a file.
    pub password: Option<String>,
    /// File with the password.
    pub password_file: Option<PathBuf>,
    /// Name of this cluster in Redis: every key contains it. 1 to 64 characters of `A-Z a-z 0-9 . _ -`.
    pub prefix: String,
    /// Which cluster this is. A Redis in which the same prefix belongs to another one is refused.
    #[serde(skip)]
    pub cluster_id: String,
    /// Milliseconds a connection may take to stand.
    pub connect_timeout_ms: u64,
    /// Milliseconds after which a silent Redis counts as away.
    pub response_timeout_ms: u64,
    /// Milliseconds a caller waits at most, whatever happens.
    pub call_timeout_ms: u64,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            url: None,
            sentinels: Vec::new(),
            master: "main".into(),
            db: 0,
            cluster: Vec::new(),
            username: None,
            password: None,
            password_file: None,
            prefix: "switchboard".into(),
            cluster_id: "switchboard".into(),
            connect_timeout_ms: 1000,
            response_timeout_ms: 500,
            call_timeout_ms: 200,
        }
    }
}

/// Without secrets: an address may carry a password.
impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { prefix, cluster_id, master, .. } = self;
        f.debug_struct("RedisConfig")
            .field("place", &self.place())
            .field("master", master)
            .field("prefix", prefix)
            .field("cluster_id", cluster_id)
            .finish_non_exhaustive()
    }
}

/// What is connected to.
#[derive(Clone)]
pub(crate) enum Target {
    Single(Box<ConnectionInfo>),
    Sentinel { sentinels: Vec<ConnectionInfo>, master: String, settings: RedisConnectionInfo },
    Cluster(Box<ClusterClient>),
}

fn bad(why: impl fmt::Display) -> RegistryError {
    RegistryError(format!("settings of Redis: {why}"))
}

fn is_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed)
}

/// Host and port of an address, without what may be secret.
fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    rest.split(['/', '?']).next().unwrap_or(rest)
}

fn info_of(url: &str) -> Result<ConnectionInfo, RegistryError> {
    let address = if url.contains("://") { url.to_owned() } else { format!("redis://{url}") };
    if !address.starts_with("redis://") {
        return Err(bad(format_args!("{}: an address is redis://host:port", host_of(url))));
    }
    address.as_str().into_connection_info().map_err(|why| bad(format_args!("{}: {}", host_of(url), why.category())))
}

impl RedisConfig {
    /// Where Redis is, for logs.
    pub fn place(&self) -> String {
        let hosts = |urls: &[String]| urls.iter().map(|url| host_of(url)).collect::<Vec<_>>().join(",");
        match &self.url {
            Some(url) => host_of(url).to_owned(),
            None if self.cluster.is_empty() => format!("sentinels {}", hosts(&self.sentinels)),
            None => format!("cluster {}", hosts(&self.cluster)),
        }
    }

    /// Longest time a caller waits.
    pub fn call_timeout(&self) -> Duration {
        Duration::from_millis(self.call_timeout_ms)
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    pub(crate) fn response_timeout(&self) -> Duration {
        Duration::from_millis(self.response_timeout_ms)
    }

    /// A key beside the members, all in one slot.
    pub(crate) fn members_key(&self, what: &str) -> String {
        format!("{{{}:members}}:{what}", self.prefix)
    }

    fn password(&self) -> Result<Option<String>, RegistryError> {
        match (&self.password, &self.password_file) {
            (Some(_), Some(_)) => Err(bad("password and password_file are both given")),
            (Some(password), None) => Ok(Some(password.clone())),
            (None, None) => Ok(None),
            (None, Some(file)) => {
                let text = std::fs::read_to_string(file).map_err(|why| bad(format_args!("{}: {why}", file.display())))?;
                Ok(Some(text.trim_end().to_owned()))
            }
        }
    }

    fn with_credentials(&self, mut settings: RedisConnectionInfo) -> Result<RedisConnectionInfo, RegistryError> {
        if let Some(username) = &self.username {
            settings = settings.set_username(username);
        }
        if let Some(password) = self.password()? {
            settings = settings.set_password(password);
        }
        Ok(settings)
    }

    /// Says what is wrong with the settings, before anything is connected.
    ///
    /// # Errors
    /// [`RegistryError`] with the reason.
    pub fn check(&self) -> Result<(), RegistryError> {
        self.target().map(drop)
    }

    /// Checks everything and says what to connect to.
    pub(crate) fn target(&self) -> Result<Target, RegistryError> {
        if !is_name(&self.prefix) || !is_name(&self.cluster_id) {
            return Err(bad("prefix and cluster_id are 1 to 64 characters of A-Z a-z 0-9 . _ -"));
        }
        let times = [self.connect_timeout_ms, self.response_timeout_ms, self.call_timeout_ms];
        if times.iter().any(|ms| !TIMEOUT_MS.contains(ms)) {
            return Err(bad("a timeout is 10 to 60000 ms"));
        }
        let infos = |urls: &[String]| urls.iter().map(|url| info_of(url)).collect::<Result<Vec<_>, _>>();
        match (&self.url, self.sentinels.is_empty(), self.cluster.is_empty()) {
            (Some(url), true, true) => {
                let info = info_of(url)?;
                let settings = self.with_credentials(info.redis_settings().clone())?;
                Ok(Target::Single(Box::new(info.set_redis_settings(settings))))
            }
            (None, false, true) => Ok(Target::Sentinel {
                sentinels: infos(&self.sentinels)?,
                master: self.master.clone(),
                settings: self.with_credentials(RedisConnectionInfo::default().set_db(self.db))?,
            }),
            (None, true, false) => {
                let mut builder = ClusterClient::builder(infos(&self.cluster)?)
                    .connection_timeout(self.connect_timeout())
                    .response_timeout(self.response_timeout());
                if let Some(username) = &self.username {
                    builder = builder.username(username);
                }
                if let Some(password) = self.password()? {
                    builder = builder.password(password);
                }
                builder.build().map(|client| Target::Cluster(Box::new(client))).map_err(|why| bad(why.category()))
            }
            _ => Err(bad("exactly one of url, sentinels and cluster is given")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_place() {
        let single = RedisConfig { url: Some("redis://h:1/0".into()), ..Default::default() };
        assert!(matches!(single.target(), Ok(Target::Single(_))));
        let sentinels = RedisConfig { sentinels: vec!["h:1".into()], ..Default::default() };
        assert!(matches!(sentinels.target(), Ok(Target::Sentinel { .. })));
        let cluster = RedisConfig { cluster: vec!["redis://h:1".into()], ..Default::default() };
        assert!(matches!(cluster.target(), Ok(Target::Cluster(_))));
        assert!(RedisConfig::default().target().is_err());
        assert!(RedisConfig { cluster: vec!["h:1".into()], ..single.clone() }.target().is_err());
        assert!(RedisConfig { prefix: "a}b".into(), ..single.clone() }.target().is_err());
        assert!(RedisConfig { call_timeout_ms: 0, ..single.clone() }.target().is_err());
        assert!(RedisConfig { url: Some("rediss://h:1".into()), ..single }.target().is_err());
    }

    #[test]
    fn no_secret_is_shown() {
        let config = RedisConfig {
            url: Some("redis://user:hidden@h:6379/3".into()),
            password: Some("hidden".into()),
            ..Default::default()
        };
        assert_eq!(config.place(), "h:6379");
        assert!(!format!("{config:?}").contains("hidden"));
    }

    #[test]
    fn unknown_settings_are_refused() {
        assert!(serde_json::from_str::<RedisConfig>(r#"{"url":"redis://h:1","prefix":"p"}"#).is_ok());
        assert!(serde_json::from_str::<RedisConfig>(r#"{"uri":"redis://h:1"}"#).is_err());
    }
}
