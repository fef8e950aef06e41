//! The command line of `switchboard chat`.

use std::path::PathBuf;

/// Chat from a terminal, or from a script with --json.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
In a conversation:
  /to +4915112345678 | USER | d:LOWER:HIGHER    whom you write to; then each line is a message
  /history [N]   /conversations   /read   /who   /devices   /name [NAME]   /help   /quit

For scripts, one JSON object a line:
  echo '{\"to\":\"+4915112345678\",\"text\":\"hi\"}' | switchboard chat --as +4915187654321 --json
  switchboard chat --as +4915187654321 --json --follow < /dev/null

Exit codes: 0 all was accepted; 1 failed; 2 wrong command line; 3 some of it was refused for good; 4 not in time (what waits is sent in the
next run); 5 not signed in; 6 this device is in use elsewhere. docs/terminal.md has the rest.")]
pub struct Args {
    /// Your phone number, with the plus (E.164).
    #[arg(long = "as", value_name = "PHONE", value_parser = phone)]
    pub(crate) phone: String,
    /// Where the server is; http://, https://, ws:// or wss://.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub(crate) url: String,
    /// Trust the authorities of this file (PEM) only, instead of those of the system.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Where session, cursor and outbox are kept [default: switchboard in $XDG_STATE_HOME or ~/.local/state]. Each is one device.
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// Sign in with this code, which was asked for before.
    #[arg(long, value_name = "CODE", conflicts_with_all = ["request_code", "log_out"])]
    pub(crate) code: Option<String>,
    /// Have a code sent to the phone, and end.
    #[arg(long, conflicts_with = "log_out")]
    pub(crate) request_code: bool,
    /// Your name, if the account is new.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Log this device out, and forget all but the messages that were not sent.
    #[arg(long)]
    pub(crate) log_out: bool,
    /// One JSON object a line, in and out.
    #[arg(long)]
    pub(crate) json: bool,
    /// Stay this many seconds after the input has ended and all of it is accepted, for what comes.
    #[arg(long, value_name = "SECONDS", conflicts_with = "follow")]
    pub(crate) wait: Option<u64>,
    /// End after the first message of somebody else; with --wait, exit code 4 if none comes in that time.
    #[arg(long, conflicts_with = "follow")]
    pub(crate) once: bool,
    /// Stay until ended (Ctrl-C), whatever the input does.
    #[arg(long)]
    pub(crate) follow: bool,
    /// Give up this many seconds after the input has ended, if not all of it is accepted.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) timeout: u64,
    /// On a new device: begin with the oldest message the server has kept, instead of the next.
    #[arg(long)]
    pub(crate) from_start: bool,
    /// What is shown counts as read.
    #[arg(long)]
    pub(crate) mark_read: bool,
}

/// E.164: the plus and 7 to 15 digits, the first not 0.
pub(crate) fn phone(text: &str) -> Result<String, String> {
    let digits = text.strip_prefix('+').unwrap_or_default();
    let good = (7..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    if good { Ok(text.to_owned()) } else { Err("a phone number is + and 7 to 15 digits, such as +4915112345678".into()) }
}
