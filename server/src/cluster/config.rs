//! The section `[cluster]`: with it a process is one of many, without it the server is whole and embedded.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use router::log::kafka::KafkaConfig;
use router::registry::redis::RedisConfig;
use serde::Deserialize;
use storage::store::postgres::PostgresConfig;

/// What a process does in a cluster.
#[derive(Debug, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Holds clients' sockets.
    Gateway,
    /// Expands accepted messages to mailboxes.
    Router,
    /// Owns virtual shards.
    Storage,
}

/// Shortest secret of a cluster, bytes.
const SECRET_BYTES_MIN: usize = 32;

/// `[cluster]`
#[derive(Debug, Deserialize, Clone)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Cluster {
    /// What this process is called, for people and in logs: unique in the cluster; letters, digits, `-`, `_`, `.`.
    pub(crate) name: String,
    /// What the cluster is called: a process refuses the Redis or Postgres of another one.
    pub(crate) id: String,
    /// What this process does.
    pub(crate) roles: Vec<Role>,
    /// Where other nodes reach this one.
    pub(crate) link: SocketAddr,
    /// Where they do, if not at `link`: behind an address translation, or when `link` is 0.0.0.0.
    pub(crate) advertise: Option<SocketAddr>,
    /// File with the secret by which nodes know each other, at least 32 bytes. Without it only nodes of this machine are taken.
    pub(crate) secret_file: Option<PathBuf>,
    /// Incarnation of the log; raised by a person when Kafka was lost and begins anew.
    pub(crate) log_epoch: u16,
    /// The log.
    pub(crate) kafka: KafkaConfig,
    /// Registry and leases.
    pub(crate) redis: RedisConfig,
    /// Mailboxes.
    pub(crate) postgres: PostgresConfig,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            name: String::new(),
            id: "switchboard".into(),
            roles: vec![Role::Gateway, Role::Router, Role::Storage],
            link: SocketAddr::from(([127, 0, 0, 1], 0)),
            advertise: None,
            secret_file: None,
            log_epoch: 1,
            kafka: KafkaConfig::default(),
            redis: RedisConfig::default(),
            postgres: PostgresConfig::default(),
        }
    }
}

impl Cluster {
    /// One name and one number of shards for all parts.
    pub(crate) fn agree(&mut self) {
        self.redis.cluster_id.clone_from(&self.id);
        self.postgres.cluster_id.clone_from(&self.id);
        self.postgres.virtual_shards = self.kafka.partitions.mailbox;
    }

    /// Whether this process has a role.
    pub(crate) fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// Checks what can be checked before anything opens. Errors name the key.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let good = |text: &str| {
            !text.is_empty()
                && text.len() <= 48
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        ensure!(
            good(&self.name),
            "cluster.name must be 1 to 48 letters, digits, '-', '_' or '.': it names this process in the cluster"
        );
        ensure!(good(&self.id), "cluster.id must be 1 to 48 letters, digits, '-', '_' or '.'");
        ensure!(!self.roles.is_empty(), "cluster.roles is empty: one or more of gateway, router, storage (or --roles)");
        ensure!((1..0x8000).contains(&self.log_epoch), "cluster.log_epoch must be from 1 to 32767");
        let reached = self.advertise.unwrap_or(self.link);
        ensure!(
            !reached.ip().is_unspecified(),
            "cluster.advertise is needed when cluster.link is {}: other nodes must know where to come",
            self.link
        );
        ensure!(
            self.secret_file.is_some() || (self.link.ip().is_loopback() && reached.ip().is_loopback()),
            "cluster.secret_file is missing: only nodes on a loopback address may do without (a file with at least {SECRET_BYTES_MIN} random bytes, \
             the same for every node, for example from `openssl rand -hex 32`)"
        );
        self.secret()?;
        self.kafka.check().context("cluster.kafka")?;
        self.redis.check().context("cluster.redis")?;
        self.postgres.check().context("cluster.postgres")?;
        Ok(())
    }

    /// What is in force, for people: every key; of secrets only that they are there.
    pub(crate) fn summary(&self) -> String {
        let Self { name, id, roles, link, advertise, secret_file, log_epoch, kafka, redis, postgres } = self;
        let file = |file: &Option<PathBuf>| file.as_ref().map_or("none".to_owned(), |file| file.display().to_string());
        let advertise = advertise.unwrap_or(*link);
        let RedisConfig { master, db, username, password, password_file, prefix, .. } = redis;
        let password = if password.is_some() { "set" } else { "none" };
        let databases: String = postgres
            .databases
            .iter()
            .map(|one| format!("\n    {}: {}, password_file {}", one.name, one.place(), file(&one.password_file)))
            .collect();
        let (user, place) = (username.as_deref().unwrap_or("none"), redis.place());
        let redis_times = (redis.connect_timeout_ms, redis.response_timeout_ms, redis.call_timeout_ms);
        format!(
            "  cluster    {name} of {id}: {roles:?}, link {link}, advertised as {advertise}, secret_file {}, log_epoch {log_epoch}\n  \
             kafka      {kafka:#?}\n  \
             redis      {place}, master {master}, db {db}, prefix {prefix}, username {user}, password {password}, password_file {}, \
             connect, response, call: {redis_times:?} ms\n  \
             postgres   writers {}, readers {}, connect_timeout_ms {}, statement_timeout_ms {}, call_timeout_ms {}, refresh_ms {}, device_days {}{databases}\n",
            file(secret_file),
            file(password_file),
            postgres.writers,
            postgres.readers,
            postgres.connect_timeout_ms,
            postgres.statement_timeout_ms,
            postgres.call_timeout_ms,
            postgres.refresh_ms,
            postgres.device_days,
        )
    }

    /// The secret, if there is one.
    pub(crate) fn secret(&self) -> anyhow::Result<Option<Vec<u8>>> {
        let Some(file) = &self.secret_file else { return Ok(None) };
        let secret = std::fs::read(file).with_context(|| format!("cluster.secret_file {}", file.display()))?;
        let secret = secret.trim_ascii_end().to_vec();
        ensure!(
            secret.len() >= SECRET_BYTES_MIN,
            "cluster.secret_file has {} bytes; at least {SECRET_BYTES_MIN} are needed",
            secret.len()
        );
        Ok(Some(secret))
    }
}
