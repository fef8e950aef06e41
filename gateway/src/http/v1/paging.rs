//! Pages with a cursor: `?limit=1..100&before=<opaque>` gives `{items, before}`; `before` goes on, and null means that there are no more.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::error::ApiError;

/// Most items of a page.
pub const LIMIT_MAX: u32 = 100;
/// Items of a page when nobody says.
pub const LIMIT: u32 = 50;

/// Which page.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Paging {
    /// Most items, 1 to 100.
    #[param(minimum = 1, maximum = 100, default = 50)]
    limit: Option<u32>,
    /// What the page before said; absent: the first page.
    before: Option<String>,
}

impl Paging {
    /// How many items, at most.
    ///
    /// # Errors
    /// [`ApiError`] when it is out of range.
    pub fn limit(&self) -> Result<u32, ApiError> {
        let limit = self.limit.unwrap_or(LIMIT);
        if (1..=LIMIT_MAX).contains(&limit) { Ok(limit) } else { Err(ApiError::bad_field("limit", "a limit is from 1 to 100")) }
    }

    /// How many items were asked for, in range or not.
    pub const fn asked(&self) -> Option<u32> {
        self.limit
    }

    /// Where to go on.
    pub fn before(&self) -> Option<&str> {
        self.before.as_deref()
    }
}

/// A page.
#[derive(Debug, Serialize, ToSchema)]
pub struct Paged<T> {
    /// Its items.
    pub items: Vec<T>,
    /// Goes on; null: there are no more.
    #[schema(required = true)]
    pub before: Option<String>,
}
