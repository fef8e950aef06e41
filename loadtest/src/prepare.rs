//! What must be right before a run: the server is ours and on this machine or owned, tokens are there, limits suffice.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{Client, ClientError, Target};
use crate::frame::{Encoding, Hello, Limits};
use crate::process::open_files_limits;
use crate::scenario::Scenario;
use crate::tls::Authority;
use crate::tokens::{self, Account};

/// Files a process needs beside its sockets.
const OTHER_FILES: u64 = 64;
/// Tokens are asked for over HTTP so many at once.
const AT_ONCE: usize = 16;
/// The answer to a request for a token is shorter.
const ANSWER_MAX: u64 = 16 * 1024;
/// A request for a token is answered within.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// Where tokens come from.
#[derive(Debug, Clone, Default)]
pub struct TokenSource {
    /// A file of tokens.
    pub file: Option<PathBuf>,
    /// The server's binary, which signs them.
    pub switchboard: Option<PathBuf>,
    /// Its `--data`.
    pub data: Option<PathBuf>,
    /// Its `--config`.
    pub config: Option<PathBuf>,
    /// The first user.
    pub first_user: u64,
    /// Who may have signed the certificate of a server that is asked.
    pub authority: Authority,
}

/// Refuses servers that are neither on this machine nor said to be owned.
///
/// # Errors
/// When one is not, or an address is not understood.
pub async fn guard(urls: &[String], owned: &[String]) -> Result<bool> {
    let mut all_loopback = true;
    ensure!(!urls.is_empty(), "no --url");
    for url in urls {
        let target = Target::resolve(url)
            .await
            .with_context(|| format!("{url}: is it ws://host:port/ws or wss://host:port/ws, and is the name known?"))?;
        let host = target.host();
        all_loopback &= target.is_loopback();
        ensure!(
            target.is_loopback() || owned.contains(&host),
            "{host} is not this machine. A load test is an attack on whoever did not ask for it: if the server is yours, say --i-own-this-server {host}"
        );
    }
    Ok(all_loopback)
}

/// Attaches once and leaves again: is this a Switchboard server, does it know the encoding, and does it take our tokens? Its limits.
///
/// # Errors
/// When it is not, or does not, with what to do about it.
pub async fn probe(url: &str, authority: &Authority, account: &Account, encoding: Encoding) -> Result<Limits> {
    let target = Target::resolve_by(url, authority).await?.with_token(&account.token).with_encoding(encoding);
    let mut client = match Client::connect(&target).await {
        Ok(client) => client,
        Err(why) => bail!("{url}: {}", advice_on_connecting(&why)),
    };
    let hello = Hello { device: "load-probe", cursor: None, epoch: None };
    let welcome = match tokio::time::timeout(ANSWER_DEADLINE, client.hello(hello)).await {
        Err(_) => bail!("{url} takes WebSockets and does not answer hello: this is not a Switchboard server, or it hangs"),
        Ok(Ok(welcome)) => welcome,
        Ok(Err(why)) => bail!("{url}: {}", advice_on_hello(&why)),
    };
    client.close().await;
    ensure!(
        welcome.user == account.user,
        "{url}: the token of user {} is, to the server, one of user {}",
        account.user,
        welcome.user
    );
    Ok(welcome.limits)
}

fn advice_on_connecting(why: &ClientError) -> String {
    let advice = match why {
        ClientError::Http { status: 401, .. } => {
            "the server does not take the token. Tokens must be made with its own secret: --switchboard with its --data or --config"
        }
        ClientError::Http { status: 403, .. } => "the server refuses: a proxy before it, or its list of origins",
        ClientError::Http { status: 404 | 405 | 200..=399, .. } => {
            "there is a web server, but no Switchboard at this path: is it /ws?"
        }
        ClientError::Http { status: 429 | 503, .. } => {
            "the server is at a limit or not ready: its gateway.sockets_per_ip, .handshakes_per_ip, .handshakes_per_s and GET /ready tell"
        }
        ClientError::Http { status: 400, .. } => {
            "the server refuses the upgrade: does it speak TLS at this port, and is it wss://? Or it does not know the encoding"
        }
        ClientError::Http { .. } => "the server refuses the upgrade",
        ClientError::Certificate(_) => {
            "nobody vouches for this server. If it is yours, --ca FILE names the authority that signed its certificate, and the url must have the certificate's name"
        }
        ClientError::NoTls => "there is a server, but not over TLS: is it ws://?",
        ClientError::Deadline => "nothing answers there",
        ClientError::Socket(what) if what.contains("refused") => "nothing listens there: is the server running?",
        _ => "no connection",
    };
    format!("{advice} ({why})")
}

fn advice_on_hello(why: &ClientError) -> String {
    let advice = match why {
        ClientError::Closed { code: Some(4401 | 4403), .. } => "the server does not take the token, or hello came too late",
        ClientError::Closed { code: Some(4426), .. } => "the server speaks another version of the protocol",
        ClientError::Contract(_) => "this is not a Switchboard server: the upgrade works, the answer to hello is not one of ours",
        ClientError::Closed { .. } => "the connection was closed where welcome was due: is this a Switchboard server?",
        _ => "no welcome",
    };
    format!("{advice} ({why})")
}

/// Whether users may send as often as the scenario wants.
///
/// # Errors
/// When they may not, with how many sockets would do.
#[expect(clippy::cast_precision_loss, reason = "a count of users")]
pub fn check_rate(scenario: &Scenario, limits: Limits) -> Result<()> {
    let copies = scenario.retry.as_ref().map_or(1.0, |retry| 1.0 + retry.share * f64::from(retry.copies - 1));
    let away = scenario.offline.as_ref().map_or(0.0, |offline| offline.share);
    let senders = (scenario.users() as f64 * (1.0 - away)).max(1.0);
    let (rate, allowed) = (scenario.peak() * copies, f64::from(limits.sends_per_s));
    let each = rate / senders;
    let need = (rate / allowed).ceil() / (1.0 - away) * f64::from(scenario.devices);
    ensure!(
        each <= allowed,
        "{rate}/s over {senders:.0} users are {each:.0}/s for each, the server allows {allowed}/s: use --sockets {need:.0} or more, or raise its limits.sends_per_s"
    );
    Ok(())
}

/// How many worker processes hold so many sockets: as many as asked for, or as the limit of open files needs.
///
/// # Errors
/// When those asked for are too few.
pub fn workers_for(sockets: usize, asked: Option<usize>) -> Result<usize> {
    let (soft, hard) = open_files_limits()?;
    let room = soft.saturating_sub(OTHER_FILES).max(1);
    let needed = (sockets as u64).div_ceil(room);
    let workers = asked.map_or(if needed > 1 { needed } else { 0 }, |asked| asked as u64);
    let need = (sockets as u64).div_ceil(workers.max(1)) + OTHER_FILES;
    let remedy = if need <= hard { format!("`ulimit -n {need}` before it") } else { format!("the hard limit is {hard}") };
    ensure!(
        need <= soft,
        "{sockets} sockets in {} processes need {need} open files each, the limit is {soft}: --workers {needed} or more, or raise it ({remedy})",
        workers.max(1)
    );
    Ok(usize::try_from(workers)?)
}

/// Tokens of so many users.
///
/// # Errors
/// When they cannot be had, with what to do about it.
pub async fn accounts(source: &TokenSource, users: usize, url: &str) -> Result<Vec<Account>> {
    let last = source.first_user + users as u64 - 1;
    let mut accounts = if let Some(file) = &source.file {
        let accounts = tokens::read(file)?;
        ensure!(accounts.len() >= users, "{users} users need {users} tokens, {} holds {}", file.display(), accounts.len());
        accounts
    } else if source.switchboard.is_some() || source.data.is_some() || source.config.is_some() {
        sign(source, last).await?
    } else {
        ask(url, &source.authority, source.first_user..=last).await.context(
            "there is no --tokens and no --switchboard (with --data or --config), so the server was asked for tokens, which it gives in development mode only",
        )?
    };
    accounts.truncate(users);
    Ok(accounts)
}

/// Has the server's own binary sign tokens.
async fn sign(source: &TokenSource, last: u64) -> Result<Vec<Account>> {
    let beside = || Some(std::env::current_exe().ok()?.parent()?.join("switchboard"));
    let binary = source.switchboard.clone().or_else(beside).context("--switchboard names the server's binary")?;
    let mut command = tokio::process::Command::new(&binary);
    let pairs: [(&str, Option<&Path>); 2] = [("--data", source.data.as_deref()), ("--config", source.config.as_deref())];
    for (flag, value) in pairs {
        if let Some(value) = value {
            command.arg(flag).arg(value);
        }
    }
    command.args(["token", "--users", &format!("{}-{last}", source.first_user)]);
    let output = command
        .output()
        .await
        .with_context(|| format!("running {}: --switchboard names the server's binary", binary.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} token: {}: {}", binary.display(), output.status, said.trim());
    tokens::parse(&String::from_utf8(output.stdout).context("tokens are text")?)
}

/// Asks a server in development mode.
async fn ask(url: &str, authority: &Authority, users: std::ops::RangeInclusive<u64>) -> Result<Vec<Account>> {
    use futures_util::{StreamExt as _, TryStreamExt as _};
    let target = Target::resolve_by(url, authority).await?;
    let asking = futures_util::stream::iter(users).map(|user| {
        let target = target.clone();
        async move {
            let token = tokio::time::timeout(ANSWER_DEADLINE, ask_one(&target, user)).await.context("no answer in time")??;
            anyhow::Ok(Account { user, token })
        }
    });
    asking.buffered(AT_ONCE).try_collect().await
}

async fn ask_one(target: &Target, user: u64) -> Result<String> {
    let mut stream = target.dial().await.map_err(|why| anyhow::anyhow!(advice_on_connecting(&why)))?;
    let body = format!("{{\"user\":\"{user}\"}}");
    let (host, length) = (target.authority(), body.len());
    let request = format!(
        "POST /dev/token HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut answer = String::new();
    stream.take(ANSWER_MAX).read_to_string(&mut answer).await?;
    let status = answer.lines().next().unwrap_or("nothing").to_owned();
    ensure!(status.contains(" 200 "), "POST /dev/token at {host}: {status}");
    let json = answer.find("{").and_then(|at| answer.get(at..=answer.rfind('}')?)).context("no JSON in the answer")?;
    let answer: serde_json::Value = serde_json::from_str(json).context("the answer to POST /dev/token")?;
    answer.pointer("/data/token").and_then(|token| token.as_str()).map(str::to_owned).context("no token in the answer")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::load;

    #[tokio::test]
    async fn strangers_servers_are_refused() {
        let url = |host: &str| vec![format!("ws://{host}:8080/ws")];
        assert!(guard(&url("127.0.0.1"), &[]).await.unwrap());
        let refused = guard(&url("192.0.2.7"), &[]).await.unwrap_err().to_string();
        assert!(refused.contains("--i-own-this-server 192.0.2.7"), "{refused}");
        assert!(guard(&url("192.0.2.7"), &["192.0.2.8".to_owned()]).await.is_err());
        assert!(!guard(&url("192.0.2.7"), &["192.0.2.7".to_owned()]).await.unwrap());
    }

    #[test]
    fn too_many_sockets_for_the_limit_name_the_command() {
        let (soft, _) = open_files_limits().unwrap();
        let sockets = usize::try_from(soft.min(1 << 40)).unwrap() * 2;
        let refused = workers_for(sockets, Some(1)).unwrap_err().to_string();
        assert!(
            refused.contains("--workers 3") && (refused.contains("ulimit -n") || refused.contains("hard limit")),
            "{refused}"
        );
        assert_eq!(workers_for(sockets, None).unwrap(), 3);
        assert_eq!(workers_for(10, None).unwrap(), 0);
    }

    #[test]
    fn a_rate_above_the_limit_of_a_user_is_explained() {
        let mut scenario = load("direct").unwrap();
        scenario.sockets = 20;
        scenario.load.as_mut().unwrap().rate = Some(2000.0);
        let error = check_rate(&scenario, Limits::default()).unwrap_err().to_string();
        assert!(error.contains("use --sockets 40 or more"), "{error}");
    }
}
