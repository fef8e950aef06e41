//! Sessions: one that has not ended for each device of a user.

use protocol::{DeviceName, UserId};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, SqliteConnection, SqliteExecutor};

use super::{bytes, bytes_if, damaged, int, number};
use crate::error::AccountsError;
use crate::refresh::Family;
use crate::session::{ACCESS_S, Device, Ended, Sid, Why};

/// Most rows of one statement that writes when sessions were seen: two values each, of SQLite's 32,766.
const SEEN_ROWS: usize = 1000;

/// A session as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Whose.
    pub user: UserId,
    /// Of which device.
    pub device: DeviceName,
    /// Its refresh tokens.
    pub family: Family,
}

/// A session to begin.
#[derive(Debug, Clone, Copy)]
pub struct New<'a> {
    /// Its name.
    pub sid: Sid,
    /// Whose.
    pub user: UserId,
    /// Of which device.
    pub device: &'a DeviceName,
    /// What its owner sees it as.
    pub label: &'a str,
    /// How long its refresh token is good, milliseconds.
    pub refresh_ms: u64,
}

fn access_until(now_ms: u64) -> i64 {
    int(now_ms + ACCESS_S * 1000)
}

/// Begins a session with the first refresh token.
///
/// # Errors
/// [`AccountsError::Unavailable`].
pub async fn begin(connection: &mut SqliteConnection, new: &New<'_>, now_ms: u64) -> Result<(), AccountsError> {
    const BEGIN: &str = "INSERT INTO session (sid, user, device, label, number, turned_at_ms, refresh_until_ms, access_until_ms, \
        created_at_ms, seen_at_ms) VALUES (?1, ?2, ?3, ?4, 1, ?5, ?6, ?7, ?5, ?5)";
    let begin = sqlx::query(BEGIN).bind(&new.sid.bytes()[..]).bind(int(new.user.get())).bind(new.device.as_str()).bind(new.label);
    begin.bind(int(now_ms)).bind(int(now_ms + new.refresh_ms)).bind(access_until(now_ms)).execute(connection).await?;
    Ok(())
}

/// A session.
///
/// # Errors
/// [`AccountsError::Unavailable`].
pub async fn load(connection: &mut SqliteConnection, sid: Sid) -> Result<Option<Session>, AccountsError> {
    const LOAD: &str = "SELECT user, device, number, turned_at_ms, turned_key, refresh_until_ms, ended_at_ms IS NOT NULL FROM session \
        WHERE sid = ?1";
    let Some(row) = sqlx::query(LOAD).bind(&sid.bytes()[..]).fetch_optional(connection).await? else { return Ok(None) };
    let family = Family {
        number: u32::try_from(number(&row, 2)?).map_err(|_| damaged("a session"))?,
        turned_ms: number(&row, 3)?,
        key: bytes_if(&row, 4)?,
        until_ms: number(&row, 5)?,
        ended: row.try_get(6)?,
    };
    Ok(Some(Session { user: user(&row, 0)?, device: device(&row, 1)?, family }))
}

/// Stores that a family has turned.
///
/// # Errors
/// [`AccountsError::Unavailable`].
pub async fn turned(connection: &mut SqliteConnection, sid: Sid, family: &Family) -> Result<(), AccountsError> {
    const TURNED: &str = "UPDATE session SET number = ?2, turned_at_ms = ?3, turned_key = ?4, refresh_until_ms = ?5, access_until_ms = ?6, \
        seen_at_ms = max(seen_at_ms, ?3) WHERE sid = ?1";
    let turned = sqlx::query(TURNED).bind(&sid.bytes()[..]).bind(i64::from(family.number)).bind(int(family.turned_ms));
    let turned = turned.bind(family.key.map(|key| key.to_vec())).bind(int(family.until_ms)).bind(access_until(family.turned_ms));
    turned.execute(connection).await?;
    Ok(())
}

/// Which sessions to end.
#[derive(Debug, Clone, Copy)]
pub enum Which<'a> {
    /// This one.
    Session(Sid),
    /// That of a device.
    Device(UserId, &'a DeviceName),
    /// All of a user.
    User(UserId),
    /// Those of a user, but for so many that were seen last.
    AllBut(UserId, u32),
}

/// Ends sessions that have not ended, and returns them. Sessions whose refresh token has expired end too: their access tokens may be good still.
///
/// # Errors
/// [`AccountsError::Unavailable`].
pub async fn end<'c>(on: impl SqliteExecutor<'c>, which: Which<'_>, why: Why, now_ms: u64) -> Result<Vec<Ended>, AccountsError> {
    let mut sql = QueryBuilder::new("UPDATE session SET ended_at_ms = ");
    sql.push_bind(int(now_ms)).push(", ended_why = ").push_bind(why.name()).push(" WHERE ended_at_ms IS NULL AND ");
    match which {
        Which::Session(sid) => sql.push("sid = ").push_bind(sid.bytes().to_vec()),
        Which::Device(user, device) => {
            sql.push("user = ").push_bind(int(user.get())).push(" AND device = ").push_bind(device.as_str())
        }
        Which::User(user) => sql.push("user = ").push_bind(int(user.get())),
        Which::AllBut(user, kept) => {
            sql.push("sid IN (SELECT sid FROM session WHERE ended_at_ms IS NULL AND user = ").push_bind(int(user.get()));
            sql.push(" ORDER BY seen_at_ms DESC, sid LIMIT -1 OFFSET ").push_bind(i64::from(kept)).push(")")
        }
    };
    sql.push(" RETURNING sid, user, access_until_ms");
    let rows = sql.build().fetch_all(on).await?;
    rows.iter().map(ended).collect()
}

/// Sessions that have ended since then and may have good access tokens, at most so many.
///
/// # Errors
/// [`AccountsError::Unavailable`].
pub async fn ended_since<'c>(
    on: impl SqliteExecutor<'c>,
    since_ms: u64,
    now_ms: u64,
    max: usize,
) -> Result<Vec<Ended>, AccountsError> {
    const ENDED: &str = "SELECT sid, user, access_until_ms FROM session WHERE ended_at_ms >= ?1 AND access_until_ms > ?2 \
        ORDER BY access_until_ms DESC LIMIT ?3";
    let rows = sqlx::query(ENDED).bind(int(since_ms)).bind(int(now_ms)).bind(int(max as u64)).fetch_all(on).await?;
    rows.iter().map(ended).collect()
}

/// Devices of a user with a session that can go on, the one seen last first.
///
/// # Errors
/// [`AccountsError::Unavailable`].
pub async fn devices<'c>(on: impl SqliteExecutor<'c>, of: UserId, now_ms: u64) -> Result<Vec<Device>, AccountsError> {
    const DEVICES: &str = "SELECT sid, device, label, created_at_ms, seen_at_ms FROM session \
        WHERE user = ?1 AND ended_at_ms IS NULL AND refresh_until_ms > ?2 ORDER BY seen_at_ms DESC, sid";
    let rows = sqlx::query(DEVICES).bind(int(of.get())).bind(int(now_ms)).fetch_all(on).await?;
    let one = |row: &SqliteRow| {
        Ok(Device {
            sid: Sid::from_bytes(bytes(row, 0)?),
            device: device(row, 1)?,
            label: row.try_get(2)?,
            created_ms: number(row, 3)?,
            seen_ms: number(row, 4)?,
        })
    };
    rows.iter().map(one).collect()
}

/// Writes when sessions were seen.
///
/// # Errors
/// [`AccountsError::Unavailable`].
pub async fn seen(connection: &mut SqliteConnection, seen: &[(Sid, u64)]) -> Result<(), AccountsError> {
    for some in seen.chunks(SEEN_ROWS) {
        let mut sql = QueryBuilder::new("WITH seen (sid, at) AS (");
        sql.push_values(some, |mut row, (sid, at)| {
            row.push_bind(sid.bytes().to_vec()).push_bind(int(*at));
        });
        sql.push(") UPDATE session SET seen_at_ms = max(seen_at_ms, seen.at) FROM seen WHERE session.sid = seen.sid");
        sql.build().execute(&mut *connection).await?;
    }
    Ok(())
}

/// Forgets sessions none of whose tokens is good any more.
///
/// # Errors
/// [`AccountsError::Unavailable`].
pub async fn forget(connection: &mut SqliteConnection, now_ms: u64) -> Result<(), AccountsError> {
    const FORGET: &str = "DELETE FROM session WHERE access_until_ms < ?1 AND (refresh_until_ms < ?1 OR ended_at_ms IS NOT NULL)";
    sqlx::query(FORGET).bind(int(now_ms)).execute(connection).await?;
    Ok(())
}

fn user(row: &SqliteRow, at: usize) -> Result<UserId, AccountsError> {
    UserId::new(number(row, at)?).ok_or_else(|| damaged("an id"))
}

fn device(row: &SqliteRow, at: usize) -> Result<DeviceName, AccountsError> {
    row.try_get::<String, _>(at)?.parse().map_err(|_| damaged("a device"))
}

fn ended(row: &SqliteRow) -> Result<Ended, AccountsError> {
    Ok(Ended { sid: Sid::from_bytes(bytes(row, 0)?), user: user(row, 1)?, access_until_ms: number(row, 2)? })
}
