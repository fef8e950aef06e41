//! redb: copy-on-write B-trees in one file.

use std::path::Path;

use redb::{Database, ReadableDatabase as _, TableDefinition};

use super::{Engine, Rows, TABLES};

fn table(at: usize) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(TABLES[at])
}

/// One file; a commit is durable when it returns.
pub(super) struct Redb(Database);

impl Redb {
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let database = redb::Builder::new().set_cache_size(64 << 20).create(path.join("redb"))?;
        let write = database.begin_write()?;
        for at in 0..TABLES.len() {
            write.open_table(table(at))?;
        }
        write.commit()?;
        Ok(Self(database))
    }
}

impl Engine for Redb {
    fn write(&mut self, rows: &Rows) -> anyhow::Result<()> {
        let read = self.0.begin_read()?;
        let keys = read.open_table(table(2))?;
        for (key, _) in &rows[2] {
            anyhow::ensure!(redb::ReadableTable::get(&keys, key.as_slice())?.is_none(), "a key that was never written");
        }
        drop((keys, read));
        let write = self.0.begin_write()?;
        for (at, rows) in rows.iter().enumerate() {
            let mut table = write.open_table(table(at))?;
            for (key, value) in rows {
                table.insert(key.as_slice(), value.as_slice())?;
            }
        }
        Ok(write.commit()?)
    }
}
