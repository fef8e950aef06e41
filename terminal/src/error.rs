//! Why the client could not do its work, and the exit codes.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::core::Ending;

/// Everything that ends the client before or beside a conversation.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("--url {0}: an address is http://HOST:PORT or https://HOST, also as ws:// and wss://")]
    Url(String),
    #[error("{what} {path}: {why}")]
    File { what: &'static str, path: PathBuf, why: String },
    #[error("{0}: another terminal uses this state folder; give this one its own with --state")]
    InUse(PathBuf),
    #[error("no state folder: give one with --state, or set XDG_STATE_HOME or HOME")]
    NoFolder,
    #[error("{0}")]
    Authorities(String),
    #[error("{message}")]
    Refused { status: u16, code: String, message: String, retry_after_ms: u64 },
    #[error("{0}")]
    Unreachable(String),
    #[error("the certificate does not verify: {0}")]
    Untrusted(String),
    #[error("a code is needed: type it, give it with --code, or as the first line of the input")]
    NoCode,
    #[error("not signed in")]
    NotSignedIn,
    #[error("writing: {0}")]
    Output(std::io::Error),
    #[error("{0}")]
    System(std::io::Error),
}

impl Error {
    pub(crate) fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |why| Self::File { what, path, why: why.to_string() }
    }

    /// Whether the same may go well a little later.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Refused { status, .. } => matches!(status, 408 | 409 | 429 | 500 | 502..=504),
            _ => false,
        }
    }

    /// The code on the screen of a program.
    pub(crate) fn code(&self) -> &str {
        match self {
            Self::Refused { code, .. } => code,
            Self::Unreachable(_) => "unreachable",
            Self::NoCode | Self::NotSignedIn => "unauthenticated",
            _ => "failed",
        }
    }

    /// What the process ends with: `docs/terminal.md` lists them.
    pub(crate) fn exit(&self) -> ExitCode {
        match self {
            Self::Url(_) => ExitCode::from(2),
            Self::Unreachable(_) => ExitCode::from(4),
            Self::NoCode | Self::NotSignedIn => ExitCode::from(5),
            Self::Refused { status: 400 | 401, .. } => ExitCode::from(5),
            Self::InUse(_) => ExitCode::from(6),
            _ => ExitCode::FAILURE,
        }
    }
}

/// What the process ends with after a conversation, and what it says of it.
pub(crate) fn exit(ending: &Ending) -> (u8, Option<String>) {
    match ending {
        Ending::Done => (0, None),
        Ending::Unable(why) => (1, Some(why.clone())),
        Ending::Refused(count) => (3, Some(format!("{count} of what was given could not be done"))),
        Ending::NotAccepted(0) => (4, Some("the server was not reached in time".into())),
        Ending::NotAccepted(count) => (4, Some(format!("{count} messages are not accepted yet; they wait for the next run"))),
        Ending::NothingCame => (4, Some("no message came in time".into())),
        Ending::SignedOut => (5, Some("signed out: the session is over".into())),
        Ending::Elsewhere => (6, Some("this device has connected elsewhere".into())),
    }
}
