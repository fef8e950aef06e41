//! The newest code of each number.

use sqlx::{Row as _, SqliteConnection};

use super::{bytes, bytes_if, damaged, int, number};
use crate::code::{Asked, Challenge, Used};
use crate::error::AccountsError;
use crate::secret::Tag;
use crate::session::Sid;

const LOAD: &str =
    "SELECT salt, hash, made_at_ms, tries, asked, used_at_ms, used_sid, used_new, used_key FROM challenge WHERE number = ?1";
const PUT: &str = "INSERT INTO challenge (number, salt, hash, made_at_ms, tries, asked) VALUES (?1, ?2, ?3, ?4, 0, ?5) \
    ON CONFLICT (number) DO UPDATE SET salt = excluded.salt, hash = excluded.hash, made_at_ms = excluded.made_at_ms, tries = 0, \
    asked = excluded.asked, used_at_ms = NULL, used_sid = NULL, used_new = NULL, used_key = NULL";
const TRIED: &str =
    "UPDATE challenge SET tries = ?2, used_at_ms = ?3, used_sid = ?4, used_new = ?5, used_key = ?6 WHERE number = ?1";

/// The newest challenge of a number, and when it asked for codes.
///
/// # Errors
/// [`AccountsError::Unavailable`].
pub async fn load(connection: &mut SqliteConnection, of: &Tag) -> Result<Option<(Challenge, Asked)>, AccountsError> {
    let Some(row) = sqlx::query(LOAD).bind(&of[..]).fetch_optional(connection).await? else { return Ok(None) };
    let asked: Vec<u8> = row.try_get(4)?;
    let asked = asked.chunks(8).map(|at| at.try_into().map(u64::from_be_bytes)).collect::<Result<_, _>>();
    let used_at: Option<i64> = row.try_get(5)?;
    let used = match used_at {
        None => None,
        Some(_) => Some(Used {
            at_ms: number(&row, 5)?,
            sid: Sid::from_bytes(bytes(&row, 6)?),
            new: number(&row, 7)? != 0,
            key: bytes_if(&row, 8)?,
        }),
    };
    let challenge = Challenge {
        salt: bytes(&row, 0)?,
        hash: bytes(&row, 1)?,
        made_ms: number(&row, 2)?,
        tries: u8::try_from(number(&row, 3)?).unwrap_or(u8::MAX),
        used,
    };
    Ok(Some((challenge, asked.map_err(|_| damaged("a challenge"))?)))
}

/// A new code in place of the one before.
///
/// # Errors
/// [`AccountsError::Unavailable`].
pub async fn put(connection: &mut SqliteConnection, of: &Tag, challenge: &Challenge, asked: &[u64]) -> Result<(), AccountsError> {
    let asked: Vec<u8> = asked.iter().flat_map(|at| at.to_be_bytes()).collect();
    let put = sqlx::query(PUT).bind(&of[..]).bind(&challenge.salt[..]).bind(&challenge.hash[..]);
    put.bind(int(challenge.made_ms)).bind(asked).execute(connection).await?;
    Ok(())
}

/// A code was tried.
///
/// # Errors
/// [`AccountsError::Unavailable`].
pub async fn tried(connection: &mut SqliteConnection, of: &Tag, challenge: &Challenge) -> Result<(), AccountsError> {
    let used = challenge.used.as_ref();
    let tried = sqlx::query(TRIED).bind(&of[..]).bind(i64::from(challenge.tries)).bind(used.map(|used| int(used.at_ms)));
    let tried = tried.bind(used.map(|used| used.sid.bytes().to_vec())).bind(used.map(|used| used.new));
    tried.bind(used.and_then(|used| used.key).map(|key| key.to_vec())).execute(connection).await?;
    Ok(())
}

/// Forgets numbers whose newest code is older than this.
///
/// # Errors
/// [`AccountsError::Unavailable`].
pub async fn forget(connection: &mut SqliteConnection, before_ms: u64) -> Result<(), AccountsError> {
    sqlx::query("DELETE FROM challenge WHERE made_at_ms < ?1").bind(int(before_ms)).execute(connection).await?;
    Ok(())
}
