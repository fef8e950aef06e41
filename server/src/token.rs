//! `switchboard token`: needs the secret only, so it works beside a running server.

use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;

use anyhow::Context as _;
use gateway::node::now_ms;
use gateway::token::Claims;
use protocol::UserId;

use crate::args::Token;
use crate::config::Settings;
use crate::secret;

/// Prints one token, or a line `<user> <token>` for each of many.
pub(crate) fn print(settings: &Settings, wanted: &Token) -> anyhow::Result<()> {
    let tokens = secret::tokens(settings)?;
    let now_s = now_ms() / 1000;
    let sign = |user| tokens.sign(&Claims::new(user, wanted.device.clone(), now_s)).context("signing");
    let mut out: Box<dyn Write> = match &wanted.out {
        Some(path) => {
            let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
            Box::new(BufWriter::new(file.with_context(|| format!("--out {}", path.display()))?))
        }
        None => Box::new(BufWriter::new(std::io::stdout())),
    };
    if let Some(user) = wanted.user {
        writeln!(out, "{}", sign(user)?)?;
    }
    for user in wanted.users.clone().into_iter().flatten().filter_map(UserId::new) {
        writeln!(out, "{user} {}", sign(user)?)?;
    }
    out.flush().context("writing tokens")
}
