//! Between our numbers and the database's. Users, seqs, offsets and positions are below 2^63 and stored as they are; one that is not is refused
//! (a log epoch of 32,768 would make such a position). Digests and fingerprints use all 64 bits and go bit by bit.

use std::sync::Arc;

use protocol::Position;
use protocol::record::{BodyHash, Message, Record, Refusal};
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use sqlx::{ColumnIndex, Decode, Postgres, Type};

use crate::store::StoreError;

pub(super) fn damaged(what: &str) -> StoreError {
    StoreError::Damaged(what.to_owned())
}

/// A number that is to be stored.
pub(super) fn signed(number: u64) -> Result<i64, StoreError> {
    i64::try_from(number).map_err(|_| damaged("a number of 2^63 or more cannot be stored"))
}

/// A number that is only compared with stored ones.
pub(super) fn bound(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// All 64 bits.
pub(super) const fn bits(number: u64) -> i64 {
    number.cast_signed()
}

/// All 64 bits.
pub(super) const fn unbits(number: i64) -> u64 {
    number.cast_unsigned()
}

pub(super) fn unsigned(number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|_| damaged("a negative number"))
}

/// A column.
pub(super) fn get<'r, T>(row: &'r PgRow, column: &str) -> Result<T, StoreError>
where
    T: Decode<'r, Postgres> + Type<Postgres>,
    for<'s> &'s str: ColumnIndex<PgRow>,
{
    row.try_get(column).map_err(|why| StoreError::Damaged(why.to_string()))
}

/// A column with a number below 2^63.
pub(super) fn number(row: &PgRow, column: &str) -> Result<u64, StoreError> {
    unsigned(get(row, column)?)
}

/// A column with 64 bits.
pub(super) fn whole(row: &PgRow, column: &str) -> Result<u64, StoreError> {
    get(row, column).map(unbits)
}

pub(super) fn hash(bytes: &[u8]) -> Result<BodyHash, StoreError> {
    bytes.try_into().map(|bytes| BodyHash(u128::from_be_bytes(bytes))).map_err(|_| damaged("a body hash"))
}

/// The message of a stored record.
pub(super) fn message(record: &[u8], position: u64) -> Result<Arc<Message>, StoreError> {
    let record = Record::decode(record).map_err(|why| StoreError::Damaged(why.to_string()))?;
    Ok(Arc::new(Message::new(record, Position::from_stored(position))))
}

pub(super) fn refusal(bytes: &[u8]) -> Result<Arc<Refusal>, StoreError> {
    Refusal::decode(bytes).map(Arc::new).map_err(|why| StoreError::Damaged(why.to_string()))
}
