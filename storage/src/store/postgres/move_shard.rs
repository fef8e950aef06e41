//! Takes a shard to another database while it serves.
//!
//! 1. *Copy*: everything of the shard as one snapshot; meanwhile commits note what they add (`moving`). The copy's row says `copying`.
//! 2. *Catch up*: what the notes say, again and again until little is left.
//! 3. *Pause*: the row at the source says `moved`. That fences the owner and turns away every reader, since all of them look at the row.
//! 4. The rest is copied, both sides are compared, the row at the target says `open`, with a higher owner epoch. The pause ends.
//! 5. The rows at the source are deleted; its row in `shard` stays and says `moved`.
//!
//! **Safety.** A copy opens only while its source says `moved`, and `moved` is durable before. Each move has a token in the copy's row, locked by
//! every transaction that writes into the copy: a mover that was believed dead can add nothing and open nothing. Retention and other moves are
//! kept away by an advisory lock at the source; it lives with the session that also does the pause, so who has lost it cannot go on.
//!
//! **Crash** at any point: run it again. Before `moved` the copy is dropped and made anew, after it the rest is copied and the copy opened.

use std::time::{Duration, Instant};

use futures_util::TryStreamExt as _;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row as _};
use uuid::Uuid;

use super::base::connect;
use super::config::PostgresConfig;
use super::halt;
use super::tables::{NOTES, Range, TABLES, Table, delete_some, lock};
use crate::StorageError;

/// So few rows left are copied in the pause.
const FEW: u64 = 500;
/// Rounds of catching up; when commits outrun them, the pause is longer.
const ROUNDS_MAX: u32 = 20;
/// How often the rest is copied and compared inside the pause.
const COMPARES_MAX: u32 = 4;
/// Bytes of a binary copy without rows: header and trailer. Such a one is not passed on, which saves the pause its round trips.
const NO_ROWS: usize = 21;
/// How long the lock is waited for: a step of retention is short.
const LOCK_WAIT: Duration = Duration::from_secs(10);
/// Every device there is.
const ALWAYS: &str = "-infinity";

/// A move that is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moved {
    /// How long the shard served nobody. Zero when there was nothing left to do.
    pub pause: Duration,
    /// Rows copied.
    pub rows: u64,
    /// Rounds of catching up, that in the pause included.
    pub rounds: u32,
}

/// A database with what it says of the shard.
struct Side {
    name: String,
    connection: PgConnection,
    row: Option<ShardRow>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct ShardRow {
    state: String,
    version: i64,
    owner_epoch: i64,
    next_offset: i64,
    fingerprint: i64,
    stream_epoch: i64,
    moved_to: Option<String>,
    copied: Option<i64>,
}

impl Side {
    fn bad(&self, why: impl ToString) -> StorageError {
        StorageError::Database { name: self.name.clone(), why: why.to_string() }
    }

    /// Runs a statement; how many rows it met.
    async fn run(&mut self, sql: impl Into<String>) -> Result<u64, StorageError> {
        // unprepared: one round trip, which counts in the pause
        let done = sqlx::raw_sql(AssertSqlSafe(sql.into())).execute(&mut self.connection).await;
        done.map(|done| done.rows_affected()).map_err(|why| self.bad(why))
    }

    async fn one(&mut self, sql: impl Into<String>) -> Result<PgRow, StorageError> {
        let row = sqlx::query(AssertSqlSafe(sql.into())).fetch_one(&mut self.connection).await;
        row.map_err(|why| self.bad(why))
    }

    async fn look(&mut self, shard: u16) -> Result<(), StorageError> {
        const LOOK: &str = "SELECT state, map_version, owner_epoch, next_offset, fingerprint, stream_epoch, moved_to, copied \
             FROM shard WHERE shard = $1";
        let row =
            sqlx::query(LOOK).bind(i32::from(shard)).fetch_optional(&mut self.connection).await.map_err(|why| self.bad(why))?;
        let read = |row: &PgRow| {
            Ok::<_, sqlx::Error>(ShardRow {
                state: row.try_get(0)?,
                version: row.try_get(1)?,
                owner_epoch: row.try_get(2)?,
                next_offset: row.try_get(3)?,
                fingerprint: row.try_get(4)?,
                stream_epoch: row.try_get(5)?,
                moved_to: row.try_get(6)?,
                copied: row.try_get(7)?,
            })
        };
        self.row = row.as_ref().map(read).transpose().map_err(|why| self.bad(why))?;
        Ok(())
    }

    fn is(&self, state: &str) -> bool {
        self.row.as_ref().is_some_and(|row| row.state == state)
    }

    fn version(&self) -> i64 {
        self.row.as_ref().map_or(0, |row| row.version)
    }

    /// Waits for the lock that keeps retention and other moves away, until the session ends.
    async fn lock(&mut self, shard: u16) -> Result<(), StorageError> {
        let start = Instant::now();
        loop {
            let row = self.one(lock(shard)).await?;
            if row.try_get(0).map_err(|why| self.bad(why))? {
                return Ok(());
            }
            if start.elapsed() > LOCK_WAIT {
                return Err(self.bad(format!("shard {shard} is being moved or cleaned by another process")));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Deletes the rows of a shard, in small steps.
    async fn delete(&mut self, shard: u16, tables: impl IntoIterator<Item = &'static str>) -> Result<(), StorageError> {
        for table in tables {
            while self.run(delete_some(table, shard)).await? > 0 {}
        }
        Ok(())
    }
}

fn all_tables() -> impl Iterator<Item = &'static str> {
    TABLES.iter().map(|table| table.name).chain(NOTES)
}

/// All databases, and which of them the shard is served from: that with the highest version.
async fn sides(config: &PostgresConfig, shard: u16) -> Result<(Side, Vec<Side>), StorageError> {
    config.check()?;
    let mut sides = Vec::new();
    for database in &config.databases {
        let mut side = Side { name: database.name.clone(), connection: connect(database, config).await?, row: None };
        side.look(shard).await?;
        sides.push(side);
    }
    let serving = |side: &Side| side.is("open") || side.is("moved");
    let source = (0..sides.len()).filter(|at| serving(&sides[*at])).max_by_key(|at| sides[*at].version());
    let source = source.ok_or_else(|| StorageError::Config(format!("shard {shard} is in none of the databases")))?;
    Ok((sides.swap_remove(source), sides))
}

/// Moves a shard, or goes on with a move that was broken off. All databases must answer.
///
/// # Errors
/// [`StorageError::Database`] or [`StorageError::Config`] with the reason. Nothing is lost or doubled by an error: run it again, or [`abort`].
pub async fn move_shard(config: &PostgresConfig, shard: u16, to: &str) -> Result<Moved, StorageError> {
    config.database(to)?;
    let (mut source, others) = sides(config, shard).await?;
    if source.name == to {
        if source.is("moved") {
            return Err(source.bad("a move from here to another database was broken off: finish or abort it first"));
        }
        return clean_up(shard, to, others).await;
    }
    source.lock(shard).await?;
    let before = source.row.clone();
    source.look(shard).await?;
    let Some(row) = source.row.clone().filter(|row| before.as_ref().is_some_and(|b| b.version == row.version)) else {
        return Err(source.bad("the shard has just moved"));
    };
    if row.state == "moved" && row.moved_to.as_deref() != Some(to) {
        return Err(
            source.bad(format!("a move to {} was broken off: finish or abort it first", row.moved_to.unwrap_or_default()))
        );
    }
    let target = others.into_iter().find(|side| side.name == to);
    let mut target = target.ok_or_else(|| StorageError::Config(format!("there is no database {to}")))?;
    // somebody may still be deleting there what an earlier move left behind
    target.lock(shard).await?;
    let mut mover = Mover {
        shard,
        token: Uuid::now_v7().to_string(),
        source,
        target,
        at: 0,
        since: ALWAYS.to_owned(),
        moved: Moved::default(),
    };
    mover.run(&row).await?;
    Ok(mover.moved)
}

/// The shard is where it is to be: only rows may be left elsewhere.
async fn clean_up(shard: u16, to: &str, others: Vec<Side>) -> Result<Moved, StorageError> {
    for mut side in others {
        if side.is("moved") && side.row.as_ref().is_some_and(|row| row.moved_to.as_deref() == Some(to)) {
            side.lock(shard).await?;
            side.delete(shard, all_tables()).await?;
        }
    }
    Ok(Moved::default())
}

/// Breaks a move off: the shard is served from where it was, and the copy is dropped. A move that is complete stays.
///
/// # Errors
/// As [`move_shard`]; an abort that failed is run again.
pub async fn abort(config: &PostgresConfig, shard: u16) -> Result<(), StorageError> {
    let (mut source, others) = sides(config, shard).await?;
    source.lock(shard).await?;
    // first no copy can be opened any more, then the source may be again
    for mut side in others {
        if side
            .run(format!("UPDATE shard SET move_token = NULL, copied = NULL WHERE shard = {shard} AND state = 'copying'"))
            .await?
            == 1
        {
            side.delete(shard, all_tables()).await?;
            side.run(format!("DELETE FROM shard WHERE shard = {shard} AND state = 'copying' AND move_token IS NULL")).await?;
        } else if source.is("moved") {
            side.look(shard).await?;
            if side.is("open") {
                return Err(side.bad("the move is complete"));
            }
        }
    }
    let open = "state = 'open', moved_to = NULL, moving = false, map_version = map_version + 1, owner_epoch = owner_epoch + 1";
    source.run(format!("UPDATE shard SET {open} WHERE shard = {shard} AND state = 'moved'")).await?;
    source.run(format!("UPDATE shard SET moving = false WHERE shard = {shard} AND moving")).await?;
    source.delete(shard, NOTES).await
}

struct Mover {
    shard: u16,
    token: String,
    source: Side,
    target: Side,
    /// The last note that is copied.
    at: i64,
    /// Devices seen since then are copied again.
    since: String,
    moved: Moved,
}

impl Mover {
    async fn run(&mut self, row: &ShardRow) -> Result<(), StorageError> {
        for table in &TABLES {
            self.target.run(table.stage()).await?;
        }
        let resumes = row.state == "moved" && self.resume(row).await?;
        if !resumes {
            self.copy(row).await?;
            // what has just arrived is unknown to the planner, and the next move away from there asks for parts of it
            self.target.run("ANALYZE message, mailbox, identity_key, head, conversation, device").await?;
            halt("move:copied").await;
        }
        if row.state == "open" {
            while self.round().await? > FEW && self.moved.rounds < ROUNDS_MAX {}
        }
        let pause = Instant::now();
        self.close(row).await?;
        halt("move:moved").await;
        self.source.look(self.shard).await?;
        self.round().await?;
        for again in 1.. {
            match self.compare(resumes).await {
                Err(why) if again < COMPARES_MAX => {
                    tracing::warn!(shard = self.shard, %why, "copies the rest once more");
                    self.round().await?;
                }
                done => {
                    done?;
                    break;
                }
            }
        }
        self.open().await?;
        self.moved.pause = pause.elapsed();
        halt("move:opened").await;
        self.source.delete(self.shard, all_tables()).await
    }

    /// A copy that was complete but for the rest is taken over, if it is of this very move.
    async fn resume(&mut self, row: &ShardRow) -> Result<bool, StorageError> {
        let Self { shard, token, .. } = self;
        let took = self.target.run(format!(
            "UPDATE shard SET move_token = '{token}' WHERE shard = {shard} AND state = 'copying' AND copied IS NOT NULL AND map_version = {}",
            row.version - 1
        ));
        if took.await? == 0 {
            return Ok(false);
        }
        self.target.look(self.shard).await?;
        self.at = self.target.row.as_ref().and_then(|row| row.copied).unwrap_or(0);
        Ok(true)
    }

    /// Everything, as one snapshot of the source. It holds back vacuum there as long as it takes.
    async fn copy(&mut self, row: &ShardRow) -> Result<(), StorageError> {
        let Self { shard, token, .. } = self;
        let (shard, version) = (*shard, if row.state == "moved" { row.version - 1 } else { row.version });
        let begun = self.target.run(format!(
            "INSERT INTO shard AS s (shard, state, map_version, move_token) VALUES ({shard}, 'copying', {version}, '{token}') \
             ON CONFLICT (shard) DO UPDATE SET state = 'copying', map_version = excluded.map_version, move_token = excluded.move_token, \
             copied = NULL, moving = false, moved_to = NULL WHERE s.state <> 'open'"
        ));
        if begun.await? != 1 {
            return Err(self.target.bad("the shard is open there"));
        }
        self.target.delete(shard, all_tables()).await?;
        if row.state == "open" {
            self.source.delete(shard, NOTES).await?;
            self.source.run(format!("UPDATE shard SET moving = true WHERE shard = {shard} AND state = 'open'")).await?;
        }
        let to = self.begin().await?;
        for table in &TABLES {
            let rows = self.pipe(&table.copy_all_out(shard), &table.copy_all_in()).await?;
            let count: i64 = self.source.one(table.count(shard)).await?.try_get(0).map_err(|why| self.source.bad(why))?;
            if rows != count.cast_unsigned() {
                return Err(self.target.bad(format!("{} rows of {count} came to {}", rows, table.name)));
            }
        }
        self.end(to).await
    }

    /// What the notes say was added since; how many rows that were, devices and high-waters apart.
    async fn round(&mut self) -> Result<u64, StorageError> {
        let (from, since) = (self.at, self.since.clone());
        let to = self.begin().await?;
        let range = Range { shard: self.shard, from, to, since: &since };
        let mut added = 0;
        for table in &TABLES {
            let rows = self.changed(table, &range).await?;
            added += if matches!(table.name, "device" | "high_water" | "follower") { 0 } else { rows };
        }
        self.moved.rounds += 1;
        self.end(to).await?;
        Ok(added)
    }

    async fn changed(&mut self, table: &Table, range: &Range<'_>) -> Result<u64, StorageError> {
        let rows = self.pipe(&table.copy_changed_out(range), &table.copy_staged_in()).await?;
        if rows > 0 {
            self.target.run(table.take_staged()).await?;
        }
        Ok(rows)
    }

    /// A snapshot of the source and a transaction of the target, in which the copy is ours. Returns the newest note.
    async fn begin(&mut self) -> Result<i64, StorageError> {
        let Self { shard, token, .. } = self;
        let ours = format!(
            "SELECT count(*) FROM (SELECT FROM shard WHERE shard = {shard} AND state = 'copying' AND move_token = '{token}' FOR UPDATE) o"
        );
        let notes = format!(
            "SELECT greatest((SELECT max(n) FROM move_mailbox WHERE shard = {shard}), (SELECT max(n) FROM move_key WHERE shard = {shard}), {}), \
             (now() - interval '1 minute')::text",
            self.at
        );
        self.target.run("BEGIN").await?;
        let mine: i64 = self.target.one(ours).await?.try_get(0).map_err(|why| self.target.bad(why))?;
        if mine != 1 {
            return Err(self.target.bad("the copy belongs to another move"));
        }
        self.source.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let row = self.source.one(notes).await?;
        // a save of cursors that had begun by then ends within that minute
        self.since = row.try_get(1).map_err(|why| self.source.bad(why))?;
        row.try_get(0).map_err(|why| self.source.bad(why))
    }

    async fn end(&mut self, to: i64) -> Result<(), StorageError> {
        self.source.run("COMMIT").await?;
        self.target.run(format!("UPDATE shard SET copied = {to} WHERE shard = {}", self.shard)).await?;
        self.target.run("COMMIT").await?;
        self.at = to;
        Ok(())
    }

    /// Rows from one to the other, as the databases speak them.
    async fn pipe(&mut self, out: &str, into: &str) -> Result<u64, StorageError> {
        let Self { source, target, .. } = self;
        let (from, to) = (source.name.clone(), target.name.clone());
        let at = |name: &str| {
            let name = name.to_owned();
            move |why: sqlx::Error| StorageError::Database { name: name.clone(), why: why.to_string() }
        };
        let mut rows = source.connection.copy_out_raw(out).await.map_err(at(&from))?;
        let mut front = Vec::new();
        while front.len() <= NO_ROWS {
            match rows.try_next().await.map_err(at(&from))? {
                Some(bytes) => front.extend_from_slice(&bytes),
                None => return Ok(0),
            }
        }
        let mut sink = target.connection.copy_in_raw(into).await.map_err(at(&to))?;
        sink.send(front).await.map_err(at(&to))?;
        while let Some(bytes) = rows.try_next().await.map_err(at(&from))? {
            sink.send(bytes).await.map_err(at(&to))?;
        }
        let rows = sink.finish().await.map_err(at(&to))?;
        self.moved.rows += rows;
        Ok(rows)
    }

    /// From here on the source serves nobody. Waits for calls that run there.
    async fn close(&mut self, row: &ShardRow) -> Result<(), StorageError> {
        if row.state == "moved" {
            return Ok(());
        }
        let (shard, version) = (self.shard, row.version);
        self.source.run("BEGIN").await?;
        self.source.run("SET LOCAL lock_timeout = '5s'").await?;
        self.source.run(format!("SELECT 1 FROM shard WHERE shard = {shard} FOR UPDATE")).await?;
        let to = &self.target.name;
        let closed = self.source.run(format!(
            "UPDATE shard SET state = 'moved', moved_to = '{to}', map_version = map_version + 1, moving = false \
             WHERE shard = {shard} AND state = 'open' AND map_version = {version} AND moving"
        ));
        if closed.await? != 1 {
            return Err(self.source.bad("the move was aborted"));
        }
        self.source.run("COMMIT").await.map(drop)
    }

    /// Both sides must be the same. Counting everything takes time, so that is done only when a broken move goes on.
    async fn compare(&mut self, all: bool) -> Result<(), StorageError> {
        let shard = self.shard;
        let mut asks = vec![
            format!(
                "SELECT count(*), md5(string_agg(concat_ws(':', owner, head, floor, oldest_ms), ',' ORDER BY owner)) FROM head WHERE shard = {shard}"
            ),
            format!(
                "SELECT count(*), md5(string_agg(concat_ws(':', owner, device, epoch, seq), ',' ORDER BY owner, device)) FROM device WHERE shard = {shard}"
            ),
            format!(
                "SELECT count(*), md5(string_agg(concat_ws(':', partition, epoch, next_offset, digest), ',' ORDER BY partition, epoch)) FROM high_water WHERE shard = {shard}"
            ),
        ];
        if all {
            asks.extend(TABLES.iter().map(|table| table.count(shard).replace(" FROM", ", NULL::text FROM")));
        }
        for ask in asks {
            let read = |row: PgRow| Ok::<(i64, Option<String>), sqlx::Error>((row.try_get(0)?, row.try_get(1)?));
            let (there, here) = tokio::join!(self.source.one(ask.clone()), self.target.one(ask.clone()));
            let there = read(there?).map_err(|why| self.source.bad(why))?;
            let here = read(here?).map_err(|why| self.target.bad(why))?;
            if there != here {
                return Err(self
                    .target
                    .bad(format!("the copy is not the same ({} rows, {} at the source): {ask}", here.0, there.0)));
            }
        }
        Ok(())
    }

    async fn open(&mut self) -> Result<(), StorageError> {
        let Some(row) = self.source.row.clone().filter(|row| row.state == "moved") else {
            return Err(self.source.bad("the move was aborted"));
        };
        let ShardRow { version, owner_epoch, next_offset, fingerprint, stream_epoch, .. } = row;
        let opened = self.target.run(format!(
            "UPDATE shard SET state = 'open', map_version = {version} + 1, owner_epoch = {owner_epoch} + 1, next_offset = {next_offset}, \
             fingerprint = {fingerprint}, stream_epoch = {stream_epoch}, move_token = NULL, copied = NULL \
             WHERE shard = {} AND state = 'copying' AND move_token = '{}'",
            self.shard, self.token
        ));
        match opened.await? {
            1 => Ok(()),
            _ => Err(self.target.bad("the copy belongs to another move")),
        }
    }
}
