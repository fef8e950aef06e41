//! Users and what they say of themselves.

use protocol::UserId;
use rand::RngExt as _;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection, SqliteExecutor};

use super::{damaged, int, number};
use crate::error::AccountsError;
use crate::phone::Phone;
use crate::profile::Profile;

/// Ids of accounts: small numbers are left to tools, and JavaScript holds every one of these exactly.
const IDS: std::ops::Range<u64> = 1 << 32..1 << 53;
/// A random id that is taken is drawn again; of 2^53 the second draw is enough.
const DRAWS: u32 = 8;

/// The user of a number.
///
/// # Errors
/// [`AccountsError::Unavailable`].
pub async fn by_phone<'c>(on: impl SqliteExecutor<'c>, phone: &Phone) -> Result<Option<Profile>, AccountsError> {
    let row = sqlx::query("SELECT id, name, about FROM user WHERE phone = ?1").bind(phone.as_str()).fetch_optional(on).await?;
    row.as_ref().map(profile).transpose()
}

/// A user.
///
/// # Errors
/// [`AccountsError::Unavailable`].
pub async fn by_id<'c>(on: impl SqliteExecutor<'c>, user: UserId) -> Result<Option<Profile>, AccountsError> {
    let row = sqlx::query("SELECT id, name, about FROM user WHERE id = ?1").bind(int(user.get())).fetch_optional(on).await?;
    row.as_ref().map(profile).transpose()
}

/// A user's number, and when the account was made, milliseconds since 1970.
///
/// # Errors
/// [`AccountsError::Unavailable`].
pub async fn phone<'c>(on: impl SqliteExecutor<'c>, user: UserId) -> Result<Option<(Phone, u64)>, AccountsError> {
    let row = sqlx::query("SELECT phone, created_at_ms FROM user WHERE id = ?1").bind(int(user.get())).fetch_optional(on).await?;
    let Some(row) = row else { return Ok(None) };
    let phone: String = row.try_get(0)?;
    Ok(Some((phone.parse().map_err(|_| damaged("a number"))?, number(&row, 1)?)))
}

/// A new user of this number, with a random id.
///
/// # Errors
/// [`AccountsError::Unavailable`].
pub async fn create(connection: &mut SqliteConnection, phone: &Phone, name: &str, now_ms: u64) -> Result<UserId, AccountsError> {
    const CREATE: &str =
        "INSERT INTO user (id, phone, name, about, created_at_ms) VALUES (?1, ?2, ?3, '', ?4) ON CONFLICT (id) DO NOTHING";
    for _ in 0..DRAWS {
        let id = rand::rng().random_range(IDS);
        let made = sqlx::query(CREATE).bind(int(id)).bind(phone.as_str()).bind(name).bind(int(now_ms));
        if made.execute(&mut *connection).await?.rows_affected() == 1 {
            return UserId::new(id).ok_or_else(|| damaged("an id"));
        }
    }
    Err(AccountsError::Unavailable("no free user id was found".into()))
}

/// Changes what is given.
///
/// # Errors
/// [`AccountsError::Unavailable`].
pub async fn edit<'c>(
    on: impl SqliteExecutor<'c>,
    user: UserId,
    name: Option<&str>,
    about: Option<&str>,
) -> Result<Option<Profile>, AccountsError> {
    const EDIT: &str =
        "UPDATE user SET name = coalesce(?2, name), about = coalesce(?3, about) WHERE id = ?1 RETURNING id, name, about";
    let row = sqlx::query(EDIT).bind(int(user.get())).bind(name).bind(about).fetch_optional(on).await?;
    row.as_ref().map(profile).transpose()
}

fn profile(row: &SqliteRow) -> Result<Profile, AccountsError> {
    let user = UserId::new(number(row, 0)?).ok_or_else(|| damaged("an id"))?;
    Ok(Profile { user, name: row.try_get(1)?, about: row.try_get(2)? })
}
