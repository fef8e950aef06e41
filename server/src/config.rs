//! Settings: file, environment, flags, all checked here, before anything opens. An error names the key and the fix.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use config::{Config, Environment, File, FileFormat};
use gateway::config::duration;
use gateway::tls::Tls;
use protocol::limits::{KEY_DAYS_MIN, Limits};
use serde::{Deserialize, Deserializer};

use crate::accounts::{Section, Written as Accounts};
use crate::args::{Args, Command, ConfigCommand};
use crate::cluster::config::{Cluster, Role};
use crate::secret;

const PREFIX: &str = "SWITCHBOARD";
const SEPARATOR: &str = "__";
/// Canaries of each gateway of a cluster, spread over the databases.
const CANARIES: u16 = 4;

/// Everything that can be set, as it is written.
#[derive(Debug, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Written {
    data: Option<PathBuf>,
    listen: Option<SocketAddr>,
    dev: Option<bool>,
    auth: Auth,
    accounts: Accounts,
    limits: Limits,
    gateway: gateway::config::Config,
    drain: Drain,
    retention: Retention,
    store: Store,
    log: Log,
    cluster: Option<Cluster>,
}

/// `[auth]`
#[derive(Debug, Deserialize, Default, Clone)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Auth {
    /// Signing secret, at least 32 bytes. Better in a file.
    pub(crate) secret: Option<String>,
    /// File with the signing secret.
    pub(crate) secret_file: Option<PathBuf>,
    /// File with the secret before it: what it signed is accepted until it expires.
    pub(crate) previous_secret_file: Option<PathBuf>,
}

/// `[drain]`
#[derive(Debug, Deserialize, Clone, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Drain {
    #[serde(deserialize_with = "optional_duration")]
    window: Option<Duration>,
    #[serde(deserialize_with = "optional_duration")]
    deadline: Option<Duration>,
}

/// `[retention]`
#[derive(Debug, Deserialize, Clone)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Retention {
    /// Events older than this are removed; 0: never.
    pub(crate) days: u64,
    /// Identity keys older than this are removed.
    pub(crate) key_days: u64,
    /// How often.
    #[serde(deserialize_with = "duration")]
    pub(crate) every: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self { days: 365, key_days: KEY_DAYS_MIN, every: Duration::from_secs(60) }
    }
}

/// `[store]`
#[derive(Debug, Deserialize, Clone)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Store {
    /// Block cache, bytes.
    pub(crate) cache_bytes: u64,
    /// Sends that wait for the commit cycle; more are refused.
    pub(crate) queue: usize,
}

impl Default for Store {
    fn default() -> Self {
        Self { cache_bytes: 64 * 1024 * 1024, queue: 8192 }
    }
}

/// `[log]`
#[derive(Debug, Deserialize, Clone)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Log {
    /// A filter such as `info` or `info,gateway=debug`.
    pub(crate) level: String,
    /// `text` or `json`.
    pub(crate) format: Format,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into(), format: Format::Text }
    }
}

/// How log lines look.
#[derive(Debug, Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    Text,
    Json,
}

/// What is in force.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) data: PathBuf,
    pub(crate) listen: SocketAddr,
    pub(crate) auth: Auth,
    pub(crate) accounts: Section,
    pub(crate) gateway: gateway::config::Config,
    pub(crate) drain_window: Duration,
    pub(crate) drain_deadline: Duration,
    pub(crate) retention: Retention,
    pub(crate) store: Store,
    pub(crate) log: Log,
    /// None: whole and embedded.
    pub(crate) cluster: Option<Cluster>,
}

impl Settings {
    /// Reads everything and checks it.
    pub(crate) fn load(args: &Args) -> anyhow::Result<Self> {
        let environment: HashMap<String, String> = environment()?;
        let mut written = read(args.config.as_deref(), environment)?;
        if let Some(data) = &args.data {
            written.data = Some(data.clone());
        }
        if let Command::Serve(serve) | Command::Config(ConfigCommand::Check(serve)) = &args.command {
            written.listen = serve.listen.or(written.listen);
            written.dev = if serve.dev { Some(true) } else { written.dev };
            if !serve.roles.is_empty() {
                let why = "--roles needs the section [cluster] in the configuration (docs/configuration.md): without it the server is whole";
                written.cluster.as_mut().context(why)?.roles.clone_from(&serve.roles);
            }
        }
        let settings = Self::decide(written);
        settings.check()?;
        if matches!(args.command, Command::Serve(_) | Command::Config(_)) {
            // who makes a token or moves a shard need not be able to read the key
            settings.gateway.tls.as_ref().map(Tls::load).transpose()?;
        }
        Ok(settings)
    }

    fn decide(mut written: Written) -> Self {
        let listen = written.listen.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)));
        if let Some(cluster) = &mut written.cluster {
            cluster.agree();
        }
        let has_secret = written.auth.secret.is_some() || written.auth.secret_file.is_some();
        let dev = written.dev.unwrap_or(listen.ip().is_loopback() && !has_secret && written.cluster.is_none());
        // nobody waits half a minute for Ctrl-C on a laptop
        let (window_s, deadline_s) = if dev { (1, 5) } else { (10, 25) };
        let gateway = gateway::config::Config { limits: written.limits, dev, ..written.gateway };
        let gateway = match &written.cluster {
            None => gateway,
            Some(cluster) => gateway::config::Config {
                name: cluster.name.clone(),
                canaries: if cluster.has(Role::Gateway) { CANARIES } else { 0 },
                sockets: cluster.has(Role::Gateway),
                ..gateway
            },
        };
        Self {
            data: written.data.unwrap_or_else(|| PathBuf::from("switchboard-data")),
            listen,
            auth: written.auth,
            accounts: written.accounts.decide(dev),
            gateway,
            drain_window: written.drain.window.unwrap_or(Duration::from_secs(window_s)),
            drain_deadline: written.drain.deadline.unwrap_or(Duration::from_secs(deadline_s)),
            retention: written.retention,
            store: written.store,
            log: written.log,
            cluster: written.cluster,
        }
    }

    fn check(&self) -> anyhow::Result<()> {
        self.gateway.check().map_err(|(key, what)| anyhow!("{key} must be {what}"))?;
        self.accounts.config.check().map_err(|(key, what)| anyhow!("{key} must be {what}"))?;
        ensure!(self.drain_window < self.drain_deadline, "drain.window must be below drain.deadline ({:?})", self.drain_deadline);
        ensure!(
            self.retention.key_days >= KEY_DAYS_MIN,
            "retention.key_days must be at least {KEY_DAYS_MIN}, or a late retry could double a message"
        );
        ensure!(self.retention.every >= Duration::from_secs(1), "retention.every must be at least 1s");
        ensure!(self.store.cache_bytes >= 1 << 20, "store.cache_bytes must be at least 1048576");
        ensure!((16..=1 << 20).contains(&self.store.queue), "store.queue must be from 16 to 1048576");
        ensure!(
            self.auth.secret.is_none() || self.auth.secret_file.is_none(),
            "auth.secret and auth.secret_file are both set: remove one"
        );
        tracing_subscriber::EnvFilter::try_new(&self.log.level)
            .map_err(|why| anyhow!("log.level is not a filter such as \"info\": {why}"))?;
        secret::check(&self.auth)?;
        if let Some(cluster) = &self.cluster {
            cluster.check()?;
            ensure!(
                self.auth.secret.is_some() || self.auth.secret_file.is_some(),
                "auth.secret_file is missing: all gateways of a cluster must know the same secret"
            );
        }
        if !self.gateway.dev && self.auth.secret.is_none() && self.auth.secret_file.is_none() {
            bail!(
                "auth.secret_file is missing: outside development mode (here: {}) tokens must be signed with a secret of yours \
                 (a file with at least 32 random bytes, for example from `openssl rand -hex 32`); or, for trying things out, --dev",
                self.listen
            );
        }
        Ok(())
    }

    /// What is in force, for people.
    pub(crate) fn summary(&self) -> String {
        let secret = match (&self.auth.secret, &self.auth.secret_file, self.gateway.dev) {
            (Some(_), ..) => "auth.secret".to_owned(),
            (_, Some(file), _) => format!("auth.secret_file {}", file.display()),
            _ => "a random one in the data folder (development mode)".to_owned(),
        };
        let accounts = self.accounts.summary(self.cluster.is_some());
        let Self { data, listen, gateway, drain_window, drain_deadline, retention, store, log, .. } = self;
        let tls = gateway.tls.as_ref().map_or_else(
            || "none: plain".to_owned(),
            |tls| format!("1.3, certificate {}, key {}", tls.certificate.display(), tls.key.display()),
        );
        let mode = if gateway.dev { "development" } else { "production" };
        let kept = if retention.days == 0 { "for ever".to_owned() } else { format!("{} days", retention.days) };
        format!(
            "the configuration is good\n  listen     {listen}\n  tls        {tls}\n  data       {}\n  mode       {mode}\n  secret     {secret}\n  \
             accounts   {accounts}\n  drain      over {drain_window:?}, within {drain_deadline:?}\n  retention  {kept}, keys {} days, every {:?}\n  \
             store      {store:?}\n  log        {} as {:?}\n{gateway:#?}",
            data.display(),
            retention.key_days,
            retention.every,
            log.level,
            log.format,
        ) + &self.cluster.as_ref().map(|cluster| format!("\n{}", cluster.summary().trim_end())).unwrap_or_default()
    }
}

/// The variables that are meant for us.
fn environment() -> anyhow::Result<HashMap<String, String>> {
    let ours = std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(PREFIX.as_bytes()));
    let text = |text: std::ffi::OsString| {
        text.into_string().map_err(|text| anyhow!("the environment holds {text:?}, which is not UTF-8"))
    };
    ours.map(|(name, value)| Ok((text(name)?, text(value)?))).collect()
}

/// File and environment, over the defaults.
fn read(file: Option<&std::path::Path>, environment: HashMap<String, String>) -> anyhow::Result<Written> {
    // a variable with one underscore is no key of ours: tell, instead of ignoring a typing error
    let known = [format!("{PREFIX}_PLANT")];
    if let Some(name) = environment.keys().find(|name| !name.contains(SEPARATOR) && !known.contains(name) && !top_level(name)) {
        bail!(
            "the environment variable {name} is not known: a key such as limits.body_bytes is {PREFIX}_LIMITS{SEPARATOR}BODY_BYTES"
        );
    }
    let keys = environment.into_iter().filter(|(name, _)| !known.contains(name)).collect();
    let mut config = Config::builder();
    if let Some(path) = file {
        let text = std::fs::read_to_string(path).with_context(|| format!("--config {}", path.display()))?;
        config = config.add_source(File::from_str(&text, FileFormat::Toml));
    }
    let list = Environment::with_prefix(PREFIX).prefix_separator("_").separator(SEPARATOR).source(Some(keys)).try_parsing(true);
    let list = list.list_separator(",").with_list_parse_key("gateway.origins").with_list_parse_key("cluster.roles");
    let list = list.with_list_parse_key("gateway.trusted_proxies");
    let list = list.with_list_parse_key("cluster.redis.sentinels").with_list_parse_key("cluster.redis.cluster");
    let config = config.add_source(list).build().context("configuration")?;
    config.try_deserialize().map_err(|why| anyhow!("configuration: {why}"))
}

fn top_level(name: &str) -> bool {
    ["DATA", "LISTEN", "DEV"].iter().any(|key| name == format!("{PREFIX}_{key}"))
}

fn optional_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> anyhow::Result<Settings> {
        let environment = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let settings = Settings::decide(read(None, environment)?);
        settings.check()?;
        Ok(settings)
    }

    #[test]
    fn nothing_set_is_development_on_loopback() {
        let settings = settings(&[]).unwrap();
        assert!(settings.gateway.dev);
        assert_eq!(settings.listen.to_string(), "127.0.0.1:8080");
    }

    #[test]
    fn the_environment_sets_keys() {
        let settings = settings(&[
            ("SWITCHBOARD_LIMITS__SENDS_PER_S", "5000"),
            ("SWITCHBOARD_DRAIN__WINDOW", "2s"),
            ("SWITCHBOARD_GATEWAY__ORIGINS", "https://a.example,https://b.example"),
            ("SWITCHBOARD_GATEWAY__TRUSTED_PROXIES", "10.0.0.0/8,192.0.2.7"),
            ("SWITCHBOARD_LISTEN", "127.0.0.1:0"),
        ])
        .unwrap();
        assert_eq!(settings.gateway.limits.sends_per_s, 5000);
        assert_eq!(settings.drain_window, Duration::from_secs(2));
        assert_eq!(settings.gateway.origins.len(), 2);
        assert_ne!(settings.gateway.trusted_proxies, gateway::forwarded::TrustedProxies::default());
        let no_network = [("SWITCHBOARD_GATEWAY__TRUSTED_PROXIES", "10.0.0.0/8,nginx")];
        assert!(
            format!(
                "{:#}",
                super::read(None, no_network.map(|(name, value)| (name.to_owned(), value.to_owned())).into()).unwrap_err()
            )
            .contains("nginx")
        );
    }

    #[test]
    fn a_cluster_is_shown_whole_and_without_its_secrets() {
        let settings = settings(&[
            ("SWITCHBOARD_AUTH__SECRET", "0123456789abcdef0123456789abcdef"),
            ("SWITCHBOARD_CLUSTER__NAME", "one"),
            ("SWITCHBOARD_CLUSTER__ROLES", "gateway,storage"),
            ("SWITCHBOARD_CLUSTER__KAFKA__RETENTION", "2d"),
            ("SWITCHBOARD_CLUSTER__REDIS__URL", "redis://me:hidden1@cache:6379"),
            (
                "SWITCHBOARD_CLUSTER__POSTGRES__DATABASES",
                "a=postgres://me:hidden2@db1/x,b=postgres://me@db2:5433/x?password=hidden3",
            ),
        ])
        .unwrap();
        let shown = settings.summary();
        for part in [
            "one of switchboard",
            "Gateway, Storage",
            "172800s",
            "cache:6379",
            "a: me@db1:5432/x",
            "b: me@db2:5433/x",
            "mailbox: 240",
        ] {
            assert!(shown.contains(part), "{part} is not in:\n{shown}");
        }
        for secret in ["hidden", "0123456789abcdef"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }

    #[test]
    fn an_error_names_its_key() {
        let secret = ("SWITCHBOARD_AUTH__SECRET", "0123456789abcdef0123456789abcdef");
        assert!(!settings(&[("SWITCHBOARD_LISTEN", "0.0.0.0:80"), secret]).unwrap().gateway.dev);
        assert!(!settings(&[secret]).unwrap().gateway.dev, "a secret of one's own means production, even on loopback");
        let rows: [(&[(&str, &str)], &str); 13] = [
            (&[("SWITCHBOARD_LISTEN", "0.0.0.0:80")], "auth.secret_file"),
            (&[("SWITCHBOARD_LIMITS__SENDS_PER_S", "many")], "limits.sends_per_s"),
            (&[("SWITCHBOARD_LIMITS__SENDS_PER_S", "0")], "limits.sends_per_s"),
            (&[("SWITCHBOARD_LIMITS__SPEED", "1")], "speed"),
            (&[("SWITCHBOARD_LIMIT", "1")], "SWITCHBOARD_LIMIT"),
            (&[("SWITCHBOARD_GATEWAY__HEARTBEAT", "soon")], "heartbeat"),
            (&[("SWITCHBOARD_DRAIN__WINDOW", "60s")], "drain.window"),
            (&[("SWITCHBOARD_RETENTION__KEY_DAYS", "7")], "retention.key_days"),
            (&[("SWITCHBOARD_LOG__LEVEL", "a=b=c")], "log.level"),
            (&[("SWITCHBOARD_ACCOUNTS__CODES_PER_DAY", "0")], "accounts.codes_per_day"),
            (&[("SWITCHBOARD_ACCOUNTS__REFRESH_DAYS", "7")], "accounts.refresh_days"),
            (&[("SWITCHBOARD_ACCOUNTS__DELIVERY", "pigeon")], "accounts.delivery"),
            (&[secret, ("SWITCHBOARD_AUTH__PREVIOUS_SECRET_FILE", "/nowhere")], "auth.previous_secret_file"),
        ];
        for (pairs, key) in rows {
            let why = format!("{:#}", settings(pairs).unwrap_err());
            assert!(why.contains(key), "{key}: {why}");
        }
    }
}
