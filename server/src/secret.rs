//! The signing secret: configured, or, in development mode, random, made once and kept in the data folder (mode 0600).

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use accounts::secret::Keys;
use anyhow::{Context as _, ensure};
use gateway::token::{SECRET_BYTES_MIN, Tokens};

use crate::config::{Auth, Settings};

const FILE: &str = "dev-secret";

/// Tokens signed with the secret in force; those of the secret before it are accepted.
pub(crate) fn tokens(settings: &Settings) -> anyhow::Result<Tokens> {
    let tokens = Tokens::new(in_force(settings)?.as_bytes())?;
    match previous(&settings.auth)? {
        Some(previous) => Ok(tokens.accepting(previous.as_bytes())?),
        None => Ok(tokens),
    }
}

/// Keys of accounts, made of the same secrets.
pub(crate) fn keys(settings: &Settings) -> anyhow::Result<Keys> {
    Ok(Keys::new(in_force(settings)?.as_bytes(), previous(&settings.auth)?.as_deref().map(str::as_bytes)))
}

fn in_force(settings: &Settings) -> anyhow::Result<String> {
    configured(&settings.auth)?.map_or_else(|| of_folder(&settings.data), Ok)
}

/// Whether the configured secrets can be used.
pub(crate) fn check(auth: &Auth) -> anyhow::Result<()> {
    configured(auth).map(|_| ())?;
    previous(auth).map(|_| ())
}

fn previous(auth: &Auth) -> anyhow::Result<Option<String>> {
    let Some(file) = &auth.previous_secret_file else { return Ok(None) };
    let secret = read(file).context("auth.previous_secret_file")?;
    let bytes = secret.len();
    ensure!(bytes >= SECRET_BYTES_MIN, "auth.previous_secret_file has {bytes} bytes; at least {SECRET_BYTES_MIN} are needed");
    Ok(Some(secret))
}

fn configured(auth: &Auth) -> anyhow::Result<Option<String>> {
    let (secret, key) = match (&auth.secret, &auth.secret_file) {
        (Some(secret), _) => (secret.clone(), "auth.secret"),
        (None, Some(file)) => (read(file).context("auth.secret_file")?, "auth.secret_file"),
        (None, None) => return Ok(None),
    };
    ensure!(secret.len() >= SECRET_BYTES_MIN, "{key} has {} bytes; at least {SECRET_BYTES_MIN} are needed", secret.len());
    Ok(Some(secret))
}

/// The data folder: made for the owner's eyes only; one that is there stays as it is.
pub(crate) fn make_folder(data: &Path) -> anyhow::Result<()> {
    let make = fs::DirBuilder::new().recursive(true).mode(0o700).create(data);
    make.with_context(|| format!("data folder {} (key data, flag --data)", data.display()))
}

/// The random secret of the data folder, made now if there is none. Two processes that make it at once end up with one.
fn of_folder(data: &Path) -> anyhow::Result<String> {
    make_folder(data)?;
    let path = data.join(FILE);
    match read(&path) {
        Ok(secret) => return Ok(secret),
        Err(why) if why.downcast_ref::<std::io::Error>().is_some_and(|why| why.kind() == ErrorKind::NotFound) => {}
        Err(why) => return Err(why),
    }
    let secret: String = rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect();
    let temporary = data.join(format!("{FILE}.{}", std::process::id()));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .context("the development secret")?;
    file.write_all(secret.as_bytes())?;
    file.sync_all()?;
    eprintln!("switchboard: made a development secret in {}: no server has used this folder before", data.display());
    let linked = fs::hard_link(&temporary, &path);
    fs::remove_file(&temporary)?;
    match linked {
        Err(why) if why.kind() != ErrorKind::AlreadyExists => Err(why).context("the development secret"),
        _ => read(&path),
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("the secret file {}", path.display()))?;
    Ok(text.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn made_once_and_for_the_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let first = of_folder(folder.path()).unwrap();
        assert_eq!(of_folder(folder.path()).unwrap(), first);
        assert_eq!(first.len(), 64);
        let mode = fs::metadata(folder.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
