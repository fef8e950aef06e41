//! Answers to idempotency keys.

use sqlx::{Row as _, SqliteConnection, SqliteExecutor};

use super::{bytes, int, number};
use crate::error::AccountsError;
use crate::idempotency::{ANSWERS_MAX, Answer, KEPT_MS, PER_CALLER_MAX, Request};
use crate::secret::Tag;

/// What was kept under a key: hash of the body, when, the answer.
///
/// # Errors
/// [`AccountsError::Unavailable`].
pub async fn load<'c>(on: impl SqliteExecutor<'c>, key: &Tag) -> Result<Option<(Tag, u64, Answer)>, AccountsError> {
    let row =
        sqlx::query("SELECT asked, at_ms, status, body FROM answer WHERE key = ?1").bind(&key[..]).fetch_optional(on).await?;
    let Some(row) = row else { return Ok(None) };
    let status = u16::try_from(number(&row, 2)?).unwrap_or_default();
    Ok(Some((bytes(&row, 0)?, number(&row, 1)?, Answer { status, body: row.try_get(3)? })))
}

/// Keeps an answer, in place of one that has grown too old.
///
/// # Errors
/// [`AccountsError::Unavailable`].
pub async fn keep<'c>(on: impl SqliteExecutor<'c>, request: &Request, answer: &Answer, now_ms: u64) -> Result<(), AccountsError> {
    const KEEP: &str = "INSERT OR REPLACE INTO answer (key, caller, asked, status, body, at_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let keep = sqlx::query(KEEP).bind(&request.key[..]).bind(&request.caller[..]).bind(&request.body[..]);
    keep.bind(i64::from(answer.status)).bind(answer.body.as_deref()).bind(int(now_ms)).execute(on).await?;
    Ok(())
}

/// Forgets what is too old or too much.
///
/// # Errors
/// [`AccountsError::Unavailable`].
pub async fn forget(connection: &mut SqliteConnection, now_ms: u64) -> Result<(), AccountsError> {
    const OLD: &str = "DELETE FROM answer WHERE at_ms <= ?1";
    const BY_CALLER: &str = "DELETE FROM answer WHERE key IN (SELECT key FROM \
        (SELECT key, row_number() OVER (PARTITION BY caller ORDER BY at_ms DESC) AS place FROM answer) WHERE place > ?1)";
    const IN_ALL: &str = "DELETE FROM answer WHERE key IN (SELECT key FROM answer ORDER BY at_ms DESC LIMIT -1 OFFSET ?1)";
    sqlx::query(OLD).bind(int(now_ms.saturating_sub(KEPT_MS))).execute(&mut *connection).await?;
    sqlx::query(BY_CALLER).bind(i64::from(PER_CALLER_MAX)).execute(&mut *connection).await?;
    sqlx::query(IN_ALL).bind(i64::from(ANSWERS_MAX)).execute(&mut *connection).await?;
    Ok(())
}
