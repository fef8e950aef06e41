//! ejabberd from Debian's package: XMPP over WebSocket, mnesia, stream management. Started by `erl` itself, without its control script,
//! so that it needs no account of its own on the machine and no name service of Erlang.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::ensure;

use super::process::Server;
use super::{Durability, Peer, Turn};
use crate::compare::dialect::Dialect;
use crate::compare::dialect::xmpp::{HOST, PASSWORD, Xmpp};

pub(crate) struct Ejabberd;

/// Where Debian puts its libraries, one of them.
const LIBRARIES: [&str; 2] = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"];

impl Ejabberd {
    /// The folder above ejabberd's, if it is installed.
    pub(crate) fn installed() -> Option<&'static str> {
        let has = |folder: &&str| {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            entries.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("ejabberd-"))
        };
        LIBRARIES.into_iter().find(|folder| has(folder) && Path::new("/usr/bin/erl").exists())
    }
}

fn config(turn: &Turn<'_>) -> String {
    format!(
        r#"hosts: [{HOST}]
loglevel: warning
auth_method: [internal]
auth_password_format: plain
auth_cache_size: 1000000
default_db: mnesia
listen:
  -
    port: {}
    ip: "{}"
    module: ejabberd_http
    backlog: 4096
    request_handlers: {{/ws: ejabberd_http_ws}}
acl:
  local: {{user_regexp: ""}}
access_rules:
  local: {{allow: local}}
  c2s: {{allow: all}}
shaper_rules:
  max_user_sessions: 10
  max_user_offline_messages: 5000
  c2s_shaper: none
modules:
  mod_offline: {{access_max_user_messages: max_user_offline_messages}}
  mod_stream_mgmt: {{resend_on_timeout: if_offline}}
"#,
        turn.address.port(),
        turn.address.ip()
    )
}

impl Peer for Ejabberd {
    fn name(&self) -> String {
        "ejabberd".into()
    }

    fn durability(&self) -> Durability {
        Durability::Memory
    }

    fn remarks(&self) -> &'static str {
        "stream management, a request behind each message; users are online, so mnesia stores none"
    }

    fn start(&self, turn: &Turn<'_>) -> anyhow::Result<(Server, Arc<dyn Dialect>)> {
        let Some(libraries) = Self::installed() else { anyhow::bail!("ejabberd is not installed: apt-get install ejabberd") };
        let (file, ready) = (turn.dir.join("ejabberd.yml"), turn.dir.join("ready"));
        ensure!(!turn.dir.to_string_lossy().contains(['"', '\'', '\\']), "a folder whose name needs quoting");
        std::fs::write(&file, config(turn))?;
        // the accounts are there before the clock starts
        let accounts = format!(
            "{{ok, _}} = application:ensure_all_started(ejabberd), \
             [ok = ejabberd_auth:try_register(<<\"u\", (integer_to_binary(N))/binary>>, <<\"{HOST}\">>, <<\"{PASSWORD}\">>) || N <- lists:seq(0, {})], \
             ok = file:write_file(\"{}\", <<>>).",
            turn.clients - 1,
            ready.display()
        );
        let mut command = Command::new("erl");
        command.args(["-noinput", "+K", "true", "+P", "1000000", "+Q", "1000000", "-mnesia", "dir"]);
        command.arg(format!("\"{}\"", turn.dir.join("mnesia").display()));
        command.args(["-s", "ejabberd", "-eval", &accounts]);
        command.env("ERL_LIBS", libraries).env("EJABBERD_CONFIG_PATH", &file).env("ERL_CRASH_DUMP_BYTES", "0");
        command.env("EJABBERD_LOG_PATH", turn.dir.join("ejabberd.log")).env("ERL_MAX_PORTS", "1000000");
        let server = Server::start(&command, turn.dir)?;
        server.wait(|| ready.exists())?;
        Ok((server, Arc::new(Xmpp)))
    }
}
