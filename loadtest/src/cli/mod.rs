//! The command line.

pub(crate) mod compare;
mod options;
pub(crate) mod run;
pub(crate) mod search;
