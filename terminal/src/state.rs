//! What is kept between two runs, in a folder of mode 0700 with files of mode 0600: one folder for each server and phone number.
//!
//! | | |
//! |---|---|
//! | `session.json` | device, tokens |
//! | `mailbox.json` | cursor, epoch, newest receipt, read positions that are not confirmed |
//! | `contacts.json` | users by phone number: looking numbers up is rationed |
//! | `outbox/<number>.json` | a message that is not accepted yet |
//! | `lock` | held while a client runs |
//!
//! A file is written beside itself and renamed, so a kill leaves the old one or the new one. Session and outbox are on disk (fsync) before
//! anything depends on them. The mailbox is not waited for: a kill of this process loses nothing of it; after a crash of the whole machine
//! an older cursor shows some messages twice, and an unreadable one is what the server remembers of this device.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use protocol::UserId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::core::mailbox::Mailbox;
use crate::core::outbox::{Entry, OUTBOX_MAX};
use crate::error::Error;

/// Numbers that are remembered; the first by number gives way.
const CONTACTS_MAX: usize = 1000;

/// Who this device is signed in as.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Session {
    pub(crate) user: UserId,
    pub(crate) device: String,
    pub(crate) access_token: String,
    pub(crate) expires_at: String,
    pub(crate) refresh_token: String,
    /// The refresh that is under way: its answer may be asked for again under this key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refresh_key: Option<String>,
}

/// The folder. While it lives nobody else has it.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Opens, and makes it if it is not there. `place` is the server's host and port.
    pub(crate) fn open(base: Option<&Path>, place: &str, phone: &str) -> Result<Self, Error> {
        let base = base.map(Path::to_owned).or_else(default).ok_or(Error::NoFolder)?;
        let place: String = place.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' }).collect();
        let path = base.join(place).join(phone.trim_start_matches('+'));
        let outbox = path.join("outbox");
        DirBuilder::new().recursive(true).mode(0o700).create(&outbox).map_err(Error::file("state folder", &outbox))?;
        let lock = path.join("lock");
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&lock);
        let file = file.map_err(Error::file("state folder", &lock))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { path, _lock: file }),
            Err(TryLockError::WouldBlock) => Err(Error::InUse(path)),
            Err(TryLockError::Error(why)) => Err(Error::file("locking", &lock)(why)),
        }
    }

    pub(crate) fn session(&self) -> Option<Session> {
        read(&self.path.join("session.json"))
    }

    /// Kept on disk when this returns.
    pub(crate) fn keep_session(&self, session: &Session) -> Result<(), Error> {
        write(&self.path, "session.json", session, true)
    }

    pub(crate) fn mailbox(&self) -> Option<Mailbox> {
        read(&self.path.join("mailbox.json"))
    }

    pub(crate) fn keep_mailbox(&self, mailbox: &Mailbox) -> Result<(), Error> {
        write(&self.path, "mailbox.json", mailbox, false)
    }

    pub(crate) fn contacts(&self) -> BTreeMap<String, UserId> {
        read(&self.path.join("contacts.json")).unwrap_or_default()
    }

    pub(crate) fn keep_contacts(&self, contacts: &mut BTreeMap<String, UserId>) -> Result<(), Error> {
        while contacts.len() > CONTACTS_MAX {
            contacts.pop_first();
        }
        write(&self.path, "contacts.json", contacts, false)
    }

    /// The messages that wait.
    pub(crate) fn outbox(&self) -> Result<Vec<Entry>, Error> {
        let folder = self.path.join("outbox");
        let mut entries = Vec::new();
        for file in std::fs::read_dir(&folder).map_err(Error::file("outbox", &folder))? {
            let file = file.map_err(Error::file("outbox", &folder))?.path();
            if file.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let entry = read(&file).ok_or_else(|| Error::File {
                what: "outbox",
                path: file.clone(),
                why: "not readable: a message was in it; move the file away to go on".into(),
            })?;
            entries.push(entry);
            if entries.len() > OUTBOX_MAX {
                return Err(Error::File { what: "outbox", path: folder, why: format!("more than {OUTBOX_MAX} messages") });
            }
        }
        Ok(entries)
    }

    /// Kept on disk when this returns.
    pub(crate) fn keep_message(&self, entry: &Entry) -> Result<(), Error> {
        write(&self.path.join("outbox"), &name(entry), entry, true)
    }

    pub(crate) fn drop_message(&self, entry: &Entry) -> Result<(), Error> {
        let file = self.path.join("outbox").join(name(entry));
        std::fs::remove_file(&file).map_err(Error::file("outbox", &file))
    }

    /// Forgets the session and how far it came; what waits in the outbox stays.
    pub(crate) fn forget(&self) -> Result<(), Error> {
        self.forget_session()?;
        self.remove("mailbox.json")
    }

    /// Forgets the session only.
    pub(crate) fn forget_session(&self) -> Result<(), Error> {
        self.remove("session.json")
    }

    fn remove(&self, name: &str) -> Result<(), Error> {
        let file = self.path.join(name);
        match std::fs::remove_file(&file) {
            Err(why) if why.kind() != std::io::ErrorKind::NotFound => Err(Error::file("state", &file)(why)),
            _ => Ok(()),
        }
    }
}

fn name(entry: &Entry) -> String {
    format!("{:020}.json", entry.number)
}

fn default() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    Some(base.join("switchboard"))
}

fn read<T: DeserializeOwned>(file: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(file).ok()?).ok()
}

fn write<T: Serialize>(folder: &Path, name: &str, what: &T, durable: bool) -> Result<(), Error> {
    let file = folder.join(name);
    let beside = folder.join(format!("{name}.new"));
    let replace = || {
        let mut new = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        new.write_all(&serde_json::to_vec(what)?)?;
        if durable {
            new.sync_all()?;
        }
        std::fs::rename(&beside, &file)?;
        if durable { File::open(folder)?.sync_all() } else { Ok(()) }
    };
    replace().map_err(Error::file("writing", &file))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn entry(number: u64) -> Entry {
        let id = protocol::MessageId::new(uuid::Uuid::now_v7()).unwrap();
        Entry { number, id, to: "u:43".into(), text: "hi".into(), reply_to: None }
    }

    #[test]
    fn what_is_kept_is_there_again_and_for_nobody_else() {
        let base = tempfile::tempdir().unwrap();
        let folder = Folder::open(Some(base.path()), "127.0.0.1:8080", "+4915112345678").unwrap();
        assert!(matches!(Folder::open(Some(base.path()), "127.0.0.1:8080", "+4915112345678"), Err(Error::InUse(_))));
        let (first, second) = (entry(9), entry(10));
        folder.keep_message(&first).unwrap();
        folder.keep_message(&second).unwrap();
        folder.drop_message(&first).unwrap();
        let mut mailbox = Mailbox::default();
        mailbox.take(7);
        folder.keep_mailbox(&mailbox).unwrap();
        let file = folder.path.join("mailbox.json");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(&folder.path).unwrap().permissions().mode() & 0o777, 0o700);
        drop(folder);
        let folder = Folder::open(Some(base.path()), "127.0.0.1:8080", "+4915112345678").unwrap();
        assert_eq!(folder.outbox().unwrap(), [second]);
        assert_eq!(folder.mailbox().unwrap().cursor, Some(7));
        std::fs::write(&file, b"").unwrap();
        assert_eq!(folder.mailbox(), None, "a file that a crash emptied is as none");
        folder.forget().unwrap();
        assert_eq!(folder.outbox().unwrap().len(), 1, "what waits is not forgotten");
    }
}
