//! What an operator says to the cluster, and where in the code a process is to die or to wait.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::Stand;

impl Stand {
    // --- places in the code ---

    /// The next process that comes to this place in the code dies there.
    pub(crate) fn halt_at(&self, place: &str) -> Result<()> {
        Ok(std::fs::write(self.halts.path().join(place), "")?)
    }

    /// Waits until somebody has died there: a fault of the load under way.
    pub(crate) async fn halted_at(&self, place: &str) -> Result<()> {
        self.until(&format!("somebody dies at {place}"), || self.has_halted_at(place)).await?;
        self.fault(format!("death at {place}"));
        Ok(())
    }

    /// Whether somebody has died there.
    pub(crate) fn has_halted_at(&self, place: &str) -> bool {
        !self.halts.path().join(place).exists()
    }

    /// Everybody waits so long at this place from now on; 0: nobody does.
    pub(crate) fn hold_at(&self, place: &str, ms: u64) -> Result<()> {
        let file = self.halts.path().join(place);
        if ms > 0 {
            std::fs::write(file, ms.to_string())?;
        } else {
            // what is not there holds nobody
            let _ = std::fs::remove_file(file);
        }
        Ok(())
    }

    /// A file that goes with the stand.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        let file = self.halts.path().join(name);
        let _ = std::fs::remove_file(&file);
        file
    }

    // --- the operator's commands ---

    /// Runs a command of the binary with the configuration of a storage process: whether it went well, and what it said.
    pub(crate) fn admin(&self, arguments: &[&str]) -> Result<(bool, String)> {
        let mut command = Command::new(&self.binary);
        command.arg("--config").arg(self.config("storage-1")).args(arguments).env("TEST_HALTS", self.halts.path());
        for (key, value) in self.log_settings() {
            command.env(format!("SWITCHBOARD_{}", key.to_uppercase().replace('.', "__")), value);
        }
        let output = command.output().context("the binary")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        Ok((output.status.success(), said))
    }

    /// What stands before the names of topics: another one for each incarnation of the log.
    pub(crate) fn topic_prefix(&self) -> String {
        match self.log_epoch.get() {
            1 => String::new(),
            epoch => format!("log{epoch}-"),
        }
    }

    fn log_settings(&self) -> [(&'static str, String); 2] {
        [("cluster.log_epoch", self.log_epoch.get().to_string()), ("cluster.kafka.topic_prefix", self.topic_prefix())]
    }

    /// From now on commands speak of a new log.
    pub(crate) fn begin_log(&self) -> u16 {
        self.log_epoch.set(self.log_epoch.get() + 1);
        self.log_epoch.get()
    }

    /// Starts what was stopped, on the log that commands speak of.
    pub(crate) fn up_again(&self) -> Result<()> {
        let mut arguments = vec!["up".to_owned()];
        for (key, value) in self.log_settings() {
            arguments.extend(["--set".to_owned(), format!("{key}={value}")]);
        }
        self.cluster(&arguments.iter().map(String::as_str).collect::<Vec<_>>())?;
        Ok(())
    }

    /// The database that serves a virtual shard.
    pub(crate) fn database_of(&self, shard: u16) -> Result<String> {
        let (ok, said) = self.admin(&["shard", "list"])?;
        ensure!(ok, "shard list: {said}");
        let open = said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let mut open = open.filter(|words| words.len() > 2 && words[0] == shard.to_string() && words[2] == "open");
        open.next().map(|words| words[1].to_owned()).with_context(|| format!("shard {shard} is open nowhere\n{said}"))
    }
}
