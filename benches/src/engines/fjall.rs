//! fjall: log-structured merge trees behind one journal.

use std::path::Path;

use anyhow::Context as _;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{Engine, Rows, TABLES};

/// One database, a keyspace each table, memtables of 32 MiB.
pub(super) struct Fjall {
    database: Database,
    keyspaces: Vec<Keyspace>,
}

impl Fjall {
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let builder = Database::builder(path).cache_size(64 << 20).max_journaling_size(256 << 20).worker_threads(3);
        let database = builder.manual_journal_persist(true).open()?;
        let options = || KeyspaceCreateOptions::default().manual_journal_persist(true).max_memtable_size(32 << 20);
        let keyspaces = TABLES.iter().map(|name| database.keyspace(name, options)).collect::<Result<_, _>>()?;
        Ok(Self { database, keyspaces })
    }
}

impl Engine for Fjall {
    fn write(&mut self, rows: &Rows) -> anyhow::Result<()> {
        for (key, _) in &rows[2] {
            anyhow::ensure!(self.keyspaces[2].get(key)?.is_none(), "a key that was never written");
        }
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for (keyspace, rows) in self.keyspaces.iter().zip(rows) {
            for (key, value) in rows {
                batch.insert(keyspace, key.as_slice(), value.as_slice());
            }
        }
        batch.commit().context("commit")
    }
}
