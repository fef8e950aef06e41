//! A disk that is slow, or fails once: strace stands between a database and the kernel. Needs permission to trace.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::time::sleep;

use super::{BEFORE, Outcome, usual};
use crate::load::under_load;
use crate::stand::Stand;

const DATABASE: &str = "postgres-a";
/// What a sync takes longer.
const SLOWER: &str = "200ms";
const SLOW: Duration = Duration::from_secs(15);
/// What PostgreSQL says when a sync of its log fails: it must not be tried again, so all of it begins anew from what is on the disk.
const PANIC: &str = "PANIC:";

/// strace on a process and all it has started and will start.
struct Injected(Child);

impl Injected {
    /// Does so with its syncs, from now on.
    fn into(stand: &Stand, what: &str) -> Result<Self> {
        let root = stand.cluster(&["pid", DATABASE])?;
        let children = std::fs::read_to_string(format!("/proc/{root}/task/{root}/children"))?;
        let pids = std::iter::once(root.as_str()).chain(children.split_whitespace());
        let mut strace = Command::new("strace");
        strace.args(["-f", "-q", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e"]);
        strace.arg(format!("inject=fsync,fdatasync:{what}"));
        for pid in pids {
            strace.args(["-p", pid]);
        }
        stand.fault(format!("{DATABASE}: {what}"));
        let child = strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("strace")?;
        Ok(Self(child))
    }
}

impl Drop for Injected {
    fn drop(&mut self) {
        // asked by SIGINT it lets go of everybody; killed, the kernel does
        let _ = Command::new("kill").args(["-INT", &self.0.id().to_string()]).status();
        let _ = self.0.wait();
    }
}

/// Each sync of a database takes 200 ms; then one fails, and it starts again by itself.
pub(crate) async fn slow_then_failed(stand: &Stand) -> Result<Outcome> {
    let panics = || stand.whole_log(DATABASE).matches(PANIC).count();
    let before = panics();
    let slow = under_load(stand, usual("F14"), async {
        sleep(BEFORE).await;
        let slow = Injected::into(stand, &format!("delay_enter={SLOWER}"))?;
        sleep(SLOW).await;
        drop(slow);
        Ok(())
    })
    .await?
    .all_felt()?;
    ensure!(slow.slowest > Duration::from_millis(200), "nobody felt that the disk was slow");
    let failed = under_load(stand, usual("F14"), async {
        sleep(BEFORE).await;
        let failing = Injected::into(stand, "error=EIO:when=1")?;
        stand.until("a sync fails", || panics() > before).await?;
        drop(failing);
        // it starts again by itself, unless a sync of the start failed too
        stand.until("it runs again", || stand.cluster(&["start", DATABASE]).is_ok()).await?;
        sleep(2 * BEFORE).await;
        Ok(())
    })
    .await?;
    Ok(Outcome { seen: vec![slow, failed], more: String::new() })
}
