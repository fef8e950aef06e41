//! The tokens file: one line a user, `<user> <token>`, as `switchboard token --users 1-10000 --out FILE` writes it.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// A user and a token.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Account {
    /// The user.
    pub user: u64,
    /// The token.
    pub token: String,
}

/// Reads a tokens file.
///
/// # Errors
/// When it cannot be read or a line is not `<user> <token>`.
pub fn read(path: &Path) -> Result<Vec<Account>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    parse(&text).with_context(|| format!("{}", path.display()))
}

/// Reads the text of a tokens file.
///
/// # Errors
/// When a line is not `<user> <token>`, or there is none.
pub fn parse(text: &str) -> Result<Vec<Account>> {
    let accounts = text.lines().filter(|line| !line.trim().is_empty()).map(parse_line).collect::<Result<Vec<_>>>()?;
    ensure!(!accounts.is_empty(), "there is no token in it");
    Ok(accounts)
}

fn parse_line(line: &str) -> Result<Account> {
    let (user, token) = line.trim().split_once(' ').context("a line of the tokens file is `<user> <token>`")?;
    let user = user.parse().with_context(|| format!("{user} is no user"))?;
    Ok(Account { user, token: token.trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_is_one_account() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tokens");
        std::fs::write(&path, "1 aaa\n2 bbb\n\n").unwrap();
        let accounts = read(&path).unwrap();
        assert_eq!(accounts.len(), 2);
        assert_eq!((accounts[1].user, accounts[1].token.as_str()), (2, "bbb"));
        std::fs::write(&path, "1\n").unwrap();
        assert!(read(&path).is_err());
    }
}
