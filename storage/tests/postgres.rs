//! The Postgres store keeps the contract of every store, and what is its own: databases that fail, owners that are late, shards that move.
//! `TEST_POSTGRES`: addresses of two or more databases in which databases can be made, separated by spaces. Each test makes its own.

#![allow(clippy::unwrap_used, reason = "tests; the lint only knows functions marked as such")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use storage::store::contract;
use storage::store::postgres::{Database, PostgresConfig, PostgresStore, shards};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// The addresses; none: skip.
fn addresses() -> Option<Vec<String>> {
    match std::env::var("TEST_POSTGRES") {
        Ok(urls) => Some(urls.split_whitespace().map(str::to_owned).collect()),
        Err(_) if std::env::var_os("TEST_REQUIRE_ENGINES").is_some_and(|value| value == "1") => {
            panic!("TEST_POSTGRES is not set")
        }
        Err(_) => {
            println!("skipped: TEST_POSTGRES is not set");
            None
        }
    }
}

/// A cluster of new databases, one at each address.
async fn cluster(addresses: &[String], virtual_shards: u16) -> PostgresConfig {
    let name = format!("sb_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let mut databases = Vec::new();
    for (at, address) in addresses.iter().enumerate() {
        let mut admin = PgConnection::connect(address).await.unwrap();
        sqlx::query(AssertSqlSafe(format!("DROP DATABASE IF EXISTS {name}_{at}"))).execute(&mut admin).await.unwrap();
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}_{at}"))).execute(&mut admin).await.unwrap();
        let (server, _) = address.rsplit_once('/').unwrap();
        databases.push(Database { name: format!("d{at}"), url: format!("{server}/{name}_{at}"), password_file: None });
    }
    PostgresConfig { cluster_id: name, virtual_shards, databases, writers: 4, readers: 4, ..PostgresConfig::default() }
}

async fn open(config: &PostgresConfig) -> PostgresStore {
    shards::init(config).await.unwrap();
    PostgresStore::connect(config).await.unwrap()
}

#[tokio::test]
async fn it_keeps_the_contract() {
    let Some(addresses) = addresses() else { return };
    let make = async || Arc::new(open(&cluster(&addresses, 2).await).await);
    contract::run(make).await;
    contract::run_behind_a_log(make).await;
}
