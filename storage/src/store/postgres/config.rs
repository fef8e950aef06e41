//! What the store is told: which databases there are, and how long it waits for one.

use std::collections::HashSet;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use router::expand::Shards;
use serde::{Deserialize, Deserializer};
use sqlx::postgres::PgConnectOptions;

use crate::StorageError;

/// The databases of a cluster. The same in every process of it, but for pool sizes.
///
/// Connections: a process holds at most `writers + readers + 1` to each database. All processes together must stay below the
/// database's `max_connections`, less what superusers and backups need.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PostgresConfig {
    /// Name of the cluster, written into each database: one of another cluster is refused.
    #[serde(skip)]
    pub cluster_id: String,
    /// Number of virtual shards, 1 to 65,535. Fixed when the cluster is made.
    #[serde(skip)]
    pub virtual_shards: u16,
    /// The databases, one or more, each name once: a list, or one text: JSON of that list, or `name=url,name=url`.
    #[serde(deserialize_with = "databases")]
    pub databases: Vec<Database>,
    /// Connections for commits to each database: so many groups of commits are on their way at once. More makes groups smaller. They open as needed.
    pub writers: u32,
    /// After a group of commits its connection rests so long, milliseconds, and the next group gathers: larger groups cost both sides less, and wait
    /// longer. 0: no rest. At most 1,000.
    pub commit_rest_ms: u64,
    /// Connections for everything else to each database.
    pub readers: u32,
    /// For a connection to open, milliseconds.
    pub connect_timeout_ms: u64,
    /// For a statement, milliseconds; the database itself ends it then.
    pub statement_timeout_ms: u64,
    /// For a call in all, milliseconds: a free connection, and the statement. More than `statement_timeout_ms`.
    pub call_timeout_ms: u64,
    /// How often each database is asked what it holds, milliseconds. Also how soon one that was away is noticed to be back.
    pub refresh_ms: u64,
    /// Devices not seen for so many days lose their cursor: they begin at the head when they come without one of their own. At least 90.
    pub device_days: u16,
}

/// One database: always the primary, never a replica.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// Its name in this cluster, letters, digits, `-` and `_`: what the places of shards are said by. Never changed, unlike its address.
    pub name: String,
    /// `postgres://user@host:port/database?sslmode=...`
    pub url: String,
    /// File with the password, read at start; spaces around it are dropped.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
}

/// A list, or a text of it, as it can stand in the environment. Errors show no address: it may hold a password.
fn databases<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Database>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Text(String),
        List(Vec<Database>),
    }
    let text = match Either::deserialize(deserializer)? {
        Either::List(list) => return Ok(list),
        Either::Text(text) => text,
    };
    if text.trim_start().starts_with('[') {
        let why = "databases: not JSON such as [{\"name\": \"a\", \"url\": \"postgres://…\", \"password_file\": \"…\"}]";
        return serde_json::from_str(&text).map_err(|_| serde::de::Error::custom(why));
    }
    let one = |part: &str| {
        let (name, url) = part.split_once('=').filter(|(name, _)| !name.contains(['/', ':']))?;
        Some(Database { name: name.trim().to_owned(), url: url.trim().to_owned(), password_file: None })
    };
    let all: Option<Vec<_>> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(one).collect();
    all.ok_or_else(|| serde::de::Error::custom("databases: one text of them is name=url,name=url, or JSON"))
}

/// How long a statement of a serving process waits for a lock, milliseconds: retention and a move hold a shard's row for less.
const LOCK_TIMEOUT_MS: u64 = 200;

impl Default for PostgresConfig {
    fn default() -> Self {
        Self {
            cluster_id: String::new(),
            virtual_shards: 240,
            databases: Vec::new(),
            writers: 1,
            commit_rest_ms: 10,
            readers: 8,
            connect_timeout_ms: 2_000,
            statement_timeout_ms: 4_000,
            call_timeout_ms: 5_000,
            refresh_ms: 2_000,
            device_days: 180,
        }
    }
}

fn wrong(why: impl Into<String>) -> StorageError {
    StorageError::Config(why.into())
}

impl PostgresConfig {
    /// Looks whether it makes sense.
    ///
    /// # Errors
    /// [`StorageError::Config`] with the reason.
    pub fn check(&self) -> Result<(), StorageError> {
        let mut names = HashSet::new();
        if self.cluster_id.is_empty() {
            return Err(wrong("cluster_id is missing"));
        }
        if self.virtual_shards == 0 {
            return Err(wrong("virtual_shards must be at least 1"));
        }
        if self.databases.is_empty() {
            return Err(wrong("there must be at least one database"));
        }
        if self.writers == 0 || self.readers == 0 {
            return Err(wrong("writers and readers must be at least 1"));
        }
        if self.statement_timeout_ms == 0 || self.call_timeout_ms <= self.statement_timeout_ms {
            return Err(wrong("call_timeout_ms must be more than statement_timeout_ms, and both more than 0"));
        }
        if self.commit_rest_ms > 1_000 {
            return Err(wrong("commit_rest_ms must be at most 1000"));
        }
        if self.device_days < 90 {
            return Err(wrong("device_days must be at least 90"));
        }
        for database in &self.databases {
            let name = &database.name;
            let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
            if name.is_empty() || name.len() > 63 || !name.chars().all(good) {
                return Err(wrong(format!("{name:?} is no name for a database: 1 to 63 of letters, digits, - and _")));
            }
            if !names.insert(name) {
                return Err(wrong(format!("the database {name} is named twice")));
            }
        }
        Ok(())
    }

    /// The virtual shards.
    ///
    /// # Errors
    /// [`StorageError::Config`] when there are none.
    pub fn shards(&self) -> Result<Shards, StorageError> {
        Shards::new(self.virtual_shards).ok_or_else(|| wrong("virtual_shards must be at least 1"))
    }

    /// The database of a name.
    ///
    /// # Errors
    /// [`StorageError::Config`] when there is none, with those there are.
    pub fn database(&self, name: &str) -> Result<&Database, StorageError> {
        self.databases.iter().find(|one| one.name == name).ok_or_else(|| {
            let names: Vec<_> = self.databases.iter().map(|one| one.name.as_str()).collect();
            wrong(format!("there is no database {name}; there are: {}", names.join(", ")))
        })
    }

    pub(super) fn call_timeout(&self) -> Duration {
        Duration::from_millis(self.call_timeout_ms)
    }
}

impl Database {
    /// Where it is, without what may be secret: user, host, port, database; not the password, and no options.
    pub fn place(&self) -> String {
        match PgConnectOptions::from_str(&self.url) {
            Ok(options) => {
                let database = options.get_database().unwrap_or_default();
                format!("{}@{}:{}/{database}", options.get_username(), options.get_host(), options.get_port())
            }
            Err(_) => "an address that cannot be read".to_owned(),
        }
    }

    /// How to connect, without limits: for what a person runs and waits for.
    pub(super) fn plain(&self) -> Result<PgConnectOptions, StorageError> {
        // the address may hold a password: never shown
        let options =
            PgConnectOptions::from_str(&self.url).map_err(|_| wrong(format!("the url of {} cannot be read", self.name)))?;
        let options = options.application_name("switchboard").options([
            // a dead client's session ends, and with it its locks
            ("tcp_keepalives_idle", "5"),
            ("tcp_keepalives_interval", "2"),
            ("tcp_keepalives_count", "3"),
            ("client_connection_check_interval", "1s"),
            // every statement goes by a primary key; a plan made while a table was still small must not stay
            ("enable_seqscan", "off"),
            ("enable_hashjoin", "off"),
            ("enable_mergejoin", "off"),
            ("jit", "off"),
            // always the same plan: made once a connection, not once a call
            ("plan_cache_mode", "force_generic_plan"),
            ("default_transaction_isolation", "read committed"),
        ]);
        let Some(path) = &self.password_file else { return Ok(options) };
        let password = std::fs::read_to_string(path).map_err(|why| wrong(format!("{}: {why}", path.display())))?;
        Ok(options.password(password.trim()))
    }

    /// How a serving process connects.
    pub(super) fn limited(&self, config: &PostgresConfig) -> Result<PgConnectOptions, StorageError> {
        Ok(self.plain()?.options([
            ("statement_timeout", config.statement_timeout_ms.to_string()),
            // a shard whose row somebody keeps locked gives way, and is tried again later, instead of holding up all that commit with it
            ("lock_timeout", LOCK_TIMEOUT_MS.to_string()),
            ("idle_in_transaction_session_timeout", "1000".to_owned()),
        ]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(names: &[&str]) -> PostgresConfig {
        let database = |name: &&str| Database { name: (*name).to_owned(), url: "postgres://x@y/z".into(), password_file: None };
        PostgresConfig { cluster_id: "c".into(), databases: names.iter().map(database).collect(), ..PostgresConfig::default() }
    }

    #[test]
    fn databases_are_a_list_or_a_text() {
        let read = |databases: serde_json::Value| {
            serde_json::from_value::<PostgresConfig>(serde_json::json!({ "databases": databases })).map(|config| config.databases)
        };
        let two = config(&["a", "b"]).databases;
        let list = serde_json::json!([{"name": "a", "url": "postgres://x@y/z"}, {"name": "b", "url": "postgres://x@y/z"}]);
        assert_eq!(read(list.clone()).unwrap(), two);
        assert_eq!(read(list.to_string().into()).unwrap(), two, "JSON in a text");
        assert_eq!(read("a=postgres://x@y/z, b=postgres://x@y/z".into()).unwrap(), two);
        assert_eq!(read("a=postgres://x@y/z?sslmode=require".into()).unwrap()[0].url, "postgres://x@y/z?sslmode=require");
        for wrong in ["postgres://x:secret@y/z?sslmode=require", "a", "[{\"name\": \"secret\"}]"] {
            let why = read(wrong.into()).unwrap_err().to_string();
            assert!(!why.contains("secret"), "{why}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        config(&["a", "b"]).check().unwrap();
        let why = |config: PostgresConfig| config.check().unwrap_err().to_string();
        assert!(why(config(&["a", "a"])).contains("named twice"));
        assert!(why(config(&[])).contains("at least one"));
        assert!(why(config(&["a b"])).contains("no name"));
        assert!(why(PostgresConfig { cluster_id: String::new(), ..config(&["a"]) }).contains("cluster_id"));
        assert!(why(PostgresConfig { virtual_shards: 0, ..config(&["a"]) }).contains("virtual_shards"));
        assert!(why(PostgresConfig { call_timeout_ms: 1, ..config(&["a"]) }).contains("call_timeout_ms"));
        assert!(config(&["a", "b"]).database("c").unwrap_err().to_string().contains("a, b"));
        assert!(serde_json::from_str::<PostgresConfig>(r#"{"database": []}"#).is_err(), "unknown fields");
    }
}
