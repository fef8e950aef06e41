//! Who a user is: phone numbers, one-time codes, sessions of devices, profiles.
//!
//! **Path of a person through this crate.** A [`phone::Phone`] asks for a [`code::Code`] ([`Accounts::ask`]): [`limits`] let it through, a
//! [`code::Challenge`] is stored, [`delivery`] brings the code. The code comes back ([`Accounts::verify`]) and makes a user and a session of one
//! device. Each [`Accounts::refresh`] turns the session's [`refresh::Family`] one step on. A session that ends is in [`revoked`] until
//! its last token has expired.
//!
//! **Invariants.** A code is compared and its try counted in one transaction, so five tries are five whatever runs beside them. Nothing of an
//! answer depends on whether a number is known before its code was right. A refresh token is good once; one that comes again ends its
//! session. A session that has ended stays ended, also after a restart. Decisions ([`code`], [`refresh`], [`limits`]) are pure and get their time
//! as an argument or a clock; SQLite stands behind [`store`].
//!
//! **Loss policy.** A code that cannot be delivered is counted and forgotten: its owner asks again. Times at which a device was seen are
//! written some seconds later and may be lost with the process.
//!
//! **Deliberately absent.** Sockets, mailboxes, JSON web tokens (the gateway signs them over a [`Grant`]), search over users, codes and refresh
//! tokens in clear on disk, phone numbers in logs.

pub mod config;
pub mod phone;
pub mod profile;
pub mod limits;
pub mod secret;
pub mod code;
pub mod delivery;
pub mod refresh;
pub mod session;
pub mod revoked;
pub mod idempotency;
pub mod store;
mod service;
mod background;
pub mod metrics;
pub mod error;

pub use config::Config;
pub use error::AccountsError;
pub use service::{Accounts, Asked, Caller, OnEnd, Parts, Proof};
pub use session::{Grant, Sid};
