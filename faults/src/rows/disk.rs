//! A disk with no room left, under a broker or a database. Needs root: the disk is a small file system in memory.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use loadtest::record::What;
use tokio::time::sleep;

use super::{BEFORE, GATEWAYS, Outcome};
use crate::load::{Load, under_load};
use crate::seen::Seen;
use crate::stand::Stand;

/// A small file system over a folder.
struct Small {
    folder: PathBuf,
}

impl Small {
    /// Copies what is in the folder onto a file system of its own, of so many megabytes, in the same place.
    fn over(folder: &Path, megabytes: u32) -> Result<Self> {
        let aside = folder.with_extension("aside");
        let size = format!("size={megabytes}m");
        run("cp", &[Path::new("-a"), folder, &aside])?;
        let mounted =
            run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs"].map(Path::new).into_iter().chain([folder]).collect::<Vec<_>>());
        let moved = mounted.and_then(|()| {
            run("cp", &[Path::new("-a"), &aside.join("."), folder])?;
            run("chown", &[Path::new("--reference"), &aside, folder])?;
            run("chmod", &[Path::new("--reference"), &aside, folder])
        });
        std::fs::remove_dir_all(aside)?;
        moved.map(|()| Self { folder: folder.to_owned() })
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }

    /// Leaves no room at all.
    fn fill(&self) -> Result<()> {
        let mut file = std::fs::File::create(self.ballast())?;
        let piece = vec![0_u8; 64 * 1024];
        use std::io::Write as _;
        loop {
            match file.write_all(&piece) {
                Ok(()) => {}
                Err(full) if full.kind() == std::io::ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn make_room(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.ballast())?)
    }

    /// Back onto the disk that was there before.
    fn back(self) -> Result<()> {
        let aside = self.folder.with_extension("aside");
        // there is none when there was room in time
        let _ = std::fs::remove_file(self.ballast());
        run("cp", &[Path::new("-a"), &self.folder, &aside])?;
        run("umount", &[&self.folder])?;
        std::fs::remove_dir_all(&self.folder)?;
        run("mv", &[&aside, &self.folder])
    }
}

fn run(program: &str, arguments: &[&Path]) -> Result<()> {
    let output = Command::new(program).args(arguments).output().with_context(|| program.to_owned())?;
    ensure!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

pub(crate) async fn broker_full(stand: &Stand) -> Result<Outcome> {
    let folder = stand.folder.join("data/kafka-1");
    disk_full(stand, "F13k", ("kafka-1", &folder, 200)).await
}

pub(crate) async fn database_full(stand: &Stand) -> Result<Outcome> {
    let folder = PathBuf::from(stand.cluster(&["data", "postgres-a"])?);
    disk_full(stand, "F13p", ("postgres-a", &folder, 400)).await
}

/// No room for ten seconds; the engine may end, and is started again when there is room.
async fn disk_full(stand: &Stand, row: &str, (name, folder, megabytes): (&str, &Path, u32)) -> Result<Outcome> {
    stand.does("stop", name)?;
    let small = Small::over(folder, megabytes).context("needs root, for a small file system of its own");
    stand.does("start", name)?;
    let small = small?;
    let done = filled(stand, row, (name, &small)).await;
    // whatever came out, the machine is as it was
    stand.does("stop", name)?;
    small.back()?;
    stand.does("start", name)?;
    let (seen, refused) = done?;
    Ok((seen, format!("{refused} sends were refused or unknown while it was full")).into())
}

async fn filled(stand: &Stand, row: &str, (name, small): (&str, &Small)) -> Result<(Seen, usize)> {
    stand.all_ready().await?;
    // three times the usual: it is to need room
    let load = Load { row, gateways: &GATEWAYS, users: 6, rate: 300 };
    let refused = || stand.count(|entry| matches!(entry.what, What::Refused { .. } | What::Unknown { .. }));
    let mut meanwhile = 0;
    let seen = under_load(stand, load, async {
        sleep(BEFORE).await;
        let before = refused();
        stand.fault(format!("the disk of {name} is full"));
        small.fill()?;
        sleep(Duration::from_secs(10)).await;
        meanwhile = refused() - before;
        small.make_room()?;
        stand.does("start", name)?;
        sleep(2 * BEFORE).await;
        Ok(())
    })
    .await?;
    let felt = seen.faults.iter().filter_map(|fault| fault.felt).max().unwrap_or_default();
    ensure!(felt >= Duration::from_secs(10), "messages were late until {felt:?}: there was room");
    Ok((seen, meanwhile))
}
