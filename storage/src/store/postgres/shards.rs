//! What a person does to the databases of a cluster: make them, list what is where, have another one join. For the command line; each call opens
//! its own connections and may take long.

use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};

use super::base::connect;
use super::config::{Database, PostgresConfig};
use super::schema;
use crate::StorageError;

/// Class of the advisory locks on shards: "SRDC". The second number is the shard. The same in the functions of the migrations.
pub(super) const LOCK: i32 = 1_397_899_075;

/// What [`init`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Initialized {
    /// Shards that were made and given their place: all of them the first time, then none.
    pub shards_made: u16,
    /// Databases that are new in the cluster.
    pub joined: usize,
}

/// One shard in one database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardRow {
    /// Which.
    pub shard: u16,
    /// The database.
    pub database: String,
    /// `open`, `copying` or `moved`.
    pub state: String,
    /// Where it has moved, if it has.
    pub moved_to: Option<String>,
    /// Whether commits note what they add, for a move that copies it.
    pub moving: bool,
    /// Of a copy: when its move began, milliseconds since 1970.
    pub began_ms: Option<u64>,
    /// Whether a move (or, for a moment, retention) works on it here now.
    pub worked_on: bool,
    /// Grows with each change of state.
    pub map_version: u64,
    /// How often it was taken.
    pub owner_epoch: u64,
    /// Offset in its mailbox log.
    pub offset: u64,
    /// Mailboxes.
    pub mailboxes: u64,
    /// Events in them.
    pub events: u64,
}

fn bad<'a>(database: &'a Database) -> impl Fn(sqlx::Error) -> StorageError + 'a {
    |why| StorageError::Database { name: database.name.clone(), why: why.to_string() }
}

/// Makes a cluster, brings its tables up to date, or takes in databases that are new in the configuration. All of them must answer. May be run
/// again at any time, and after a crash in the middle must be.
///
/// The first time it makes all shards, spread evenly. Once a cluster is complete no shard is ever made again: one that is in no database was
/// lost with its database, which must be restored.
///
/// # Errors
/// [`StorageError::Config`], or [`StorageError::Database`] with the database and the reason: another cluster's, another number of shards, no answer.
pub async fn init(config: &PostgresConfig) -> Result<Initialized, StorageError> {
    config.check()?;
    let mut connections = Vec::new();
    for database in &config.databases {
        connections.push(connect(database, config).await?);
    }
    let mut done = Initialized::default();
    let (mut any_ready, mut held) = (false, vec![None::<usize>; config.virtual_shards.into()]);
    let mut counts = vec![0_usize; connections.len()];
    for (at, (database, connection)) in config.databases.iter().zip(&mut connections).enumerate() {
        schema::migrate(&database.name, connection).await?;
        let (ready, joined) = claim(database, config, connection).await?;
        any_ready |= ready;
        done.joined += usize::from(joined);
        let rows = sqlx::query("SELECT shard FROM shard").fetch_all(connection).await.map_err(bad(database))?;
        for row in rows {
            let shard: i32 = row.try_get(0).map_err(bad(database))?;
            if let Some(place) = usize::try_from(shard).ok().and_then(|shard| held.get_mut(shard)) {
                *place = Some(at);
                counts[at] += 1;
            }
        }
    }
    let missing: Vec<_> = (0_u16..).zip(&held).filter(|(_, place)| place.is_none()).map(|(shard, _)| shard).collect();
    if any_ready && !missing.is_empty() {
        let why = format!(
            "{} shards are in none of the databases, the first is {}: one is missing here, or must be restored",
            missing.len(),
            missing[0]
        );
        return Err(StorageError::Config(why));
    }
    make(config, &mut connections, &mut counts, &missing).await?;
    for (database, connection) in config.databases.iter().zip(&mut connections) {
        sqlx::query("UPDATE cluster SET ready = true WHERE NOT ready").execute(connection).await.map_err(bad(database))?;
    }
    done.shards_made = u16::try_from(missing.len()).unwrap_or(u16::MAX);
    Ok(done)
}

/// Writes whose the database is, or finds that it is another's. Says whether the cluster was complete, and whether the database is new in it.
async fn claim(
    database: &Database,
    config: &PostgresConfig,
    connection: &mut PgConnection,
) -> Result<(bool, bool), StorageError> {
    const CLAIM: &str = "INSERT INTO cluster (cluster_id, virtual_shards) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    let make = sqlx::query(CLAIM).bind(&config.cluster_id).bind(i32::from(config.virtual_shards));
    let joined = make.execute(&mut *connection).await.map_err(bad(database))?.rows_affected() == 1;
    let row = sqlx::query("SELECT cluster_id, virtual_shards, ready FROM cluster")
        .fetch_one(connection)
        .await
        .map_err(bad(database))?;
    let read = |row: &PgRow| Ok::<(String, i32, bool), sqlx::Error>((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
    let (id, shards, ready) = read(&row).map_err(bad(database))?;
    match schema::foreign((&config.cluster_id, config.virtual_shards), (&id, shards)) {
        Some(why) => Err(StorageError::Database { name: database.name.clone(), why }),
        None => Ok((ready, joined)),
    }
}

/// Gives each missing shard to the database that has the fewest.
async fn make(
    config: &PostgresConfig,
    connections: &mut [PgConnection],
    counts: &mut [usize],
    missing: &[u16],
) -> Result<(), StorageError> {
    let mut made: Vec<Vec<i32>> = vec![Vec::new(); counts.len()];
    for shard in missing {
        let Some(at) = (0..counts.len()).min_by_key(|at| counts[*at]) else { continue };
        counts[at] += 1;
        made[at].push((*shard).into());
    }
    for ((database, connection), shards) in config.databases.iter().zip(connections).zip(made) {
        let make = sqlx::query("INSERT INTO shard (shard, state) SELECT unnest($1), 'open'").bind(shards);
        make.execute(connection).await.map_err(bad(database))?;
    }
    Ok(())
}

/// Every shard row of every database, by shard. Counts mailboxes, so it takes a while on large databases.
///
/// # Errors
/// [`StorageError::Config`], or [`StorageError::Database`] for the first that does not answer.
pub async fn list(config: &PostgresConfig) -> Result<Vec<ShardRow>, StorageError> {
    const LIST: &str = "SELECT s.shard, s.state, s.moved_to, s.moving, s.move_token, s.map_version, s.owner_epoch, s.next_offset, \
         EXISTS (SELECT 1 FROM pg_locks l JOIN pg_database d ON d.oid = l.database WHERE d.datname = current_database() AND l.granted \
             AND l.locktype = 'advisory' AND l.objsubid = 2 AND l.classid = 1397899075 AND l.objid::bigint = s.shard) AS worked_on, \
         coalesce(h.mailboxes, 0)::bigint AS mailboxes, coalesce(h.events, 0)::bigint AS events \
         FROM shard s LEFT JOIN (SELECT shard, count(*) AS mailboxes, sum(head - floor) AS events FROM head GROUP BY shard) h USING (shard)";
    config.check()?;
    let mut all = Vec::new();
    for database in &config.databases {
        let mut connection = connect(database, config).await?;
        let rows = sqlx::query(LIST).fetch_all(&mut connection).await.map_err(bad(database))?;
        for row in &rows {
            all.push(shard_row(row, &database.name).map_err(bad(database))?);
        }
    }
    all.sort_by(|one, other| (one.shard, &one.database).cmp(&(other.shard, &other.database)));
    Ok(all)
}

fn shard_row(row: &PgRow, database: &str) -> Result<ShardRow, sqlx::Error> {
    let number = |column: &str| row.try_get::<i64, _>(column).map(i64::cast_unsigned);
    Ok(ShardRow {
        shard: u16::try_from(row.try_get::<i32, _>("shard")?).unwrap_or(u16::MAX),
        database: database.to_owned(),
        state: row.try_get("state")?,
        moved_to: row.try_get("moved_to")?,
        moving: row.try_get("moving")?,
        began_ms: row.try_get::<Option<String>, _>("move_token")?.as_deref().and_then(began_ms),
        worked_on: row.try_get("worked_on")?,
        map_version: number("map_version")?,
        owner_epoch: number("owner_epoch")?,
        offset: number("next_offset")?,
        mailboxes: number("mailboxes")?,
        events: number("events")?,
    })
}

/// A move's token is a UUID that says when it was made.
fn began_ms(token: &str) -> Option<u64> {
    let (seconds, nanos) = uuid::Uuid::parse_str(token).ok()?.get_timestamp()?.to_unix();
    Some(seconds * 1000 + u64::from(nanos) / 1_000_000)
}
