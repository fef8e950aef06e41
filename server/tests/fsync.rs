//! `accepted` means durable, seen from outside: the real binary runs under strace, and in what the kernel was asked to do, every `accepted`
//! frame leaves only after an fsync of the journal that began when all journal writes with that message's id were done.
//!
//! Needs strace and permission to trace. With the planted bug `no_fsync` the same check must fail, or it proves nothing.

#![allow(clippy::unwrap_used, reason = "tests; the lint only knows functions marked as such")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(60);
const SENDS_EACH: usize = 100;
const IN_FLIGHT: usize = 16;
const CALLS: &str = "trace=write,writev,pwrite64,pwritev,pwritev2,sendto,sendmsg,fsync,fdatasync";

#[tokio::test]
async fn accepted_leaves_after_the_fsync_of_its_record() {
    let checked = check(&trace(None).await);
    assert_eq!(checked, Ok(2 * SENDS_EACH));
}

#[cfg(feature = "testing")]
#[tokio::test]
async fn the_check_finds_a_cycle_without_fsync() {
    let checked = check(&trace(Some("no_fsync")).await);
    assert!(checked.is_err(), "a server that never syncs passed: {checked:?}");
}

#[cfg(feature = "testing")]
#[tokio::test]
async fn the_check_finds_an_early_accepted() {
    let checked = check(&trace(Some("ack_before_durable")).await);
    assert!(checked.is_err(), "a server that answers before it syncs passed: {checked:?}");
}

fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
    clean(&mut command);
    command
}

/// The server refuses settings it does not know, and those of other tests are such.
fn clean(command: &mut Command) {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SWITCHBOARD_")) {
        command.env_remove(name);
    }
    command.kill_on_drop(true).stdin(Stdio::null());
}

/// strace and the server under it, in a process group of their own: a test that fails midway leaves neither behind.
struct Traced {
    strace: Child,
    group: u32,
}

impl Drop for Traced {
    fn drop(&mut self) {
        // gone already when the test went well
        let kill =
            std::process::Command::new("kill").args(["-KILL", "--", &format!("-{}", self.group)]).stderr(Stdio::null()).status();
        drop(kill);
    }
}

/// Runs 200 sends of two users against a traced server, and kills it. Returns the trace.
async fn trace(plant: Option<&str>) -> String {
    let folder = tempfile::tempdir().unwrap();
    let (data, file) = (folder.path().join("data"), folder.path().join("trace"));
    let tokens = [token(&data, 42).await, token(&data, 43).await];
    let (mut traced, address) = serve(&data, &file, plant).await;
    let (one, other) = tokio::join!(send(&address, &tokens[0], "u:43"), send(&address, &tokens[1], "u:42"));
    assert_eq!(one + other, 2 * SENDS_EACH);
    // strace ends with the server; its first line names it
    let first = tokio::fs::read_to_string(&file).await.unwrap();
    let server = first.split_whitespace().next().unwrap();
    assert!(Command::new("kill").args(["-KILL", server]).status().await.unwrap().success());
    timeout(PATIENCE, traced.strace.wait()).await.unwrap().unwrap();
    tokio::fs::read_to_string(&file).await.unwrap()
}

async fn token(data: &Path, user: u64) -> String {
    let mut command = binary();
    command.args(["token", "--user", &user.to_string(), "--data"]).arg(data);
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

async fn serve(data: &Path, file: &PathBuf, plant: Option<&str>) -> (Traced, String) {
    let mut command = Command::new("strace");
    clean(&mut command);
    command.args(["-f", "-y", "-xx", "-s", "1000000", "-e", CALLS, "-o"]).arg(file);
    command.arg(env!("CARGO_BIN_EXE_switchboard")).args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(data);
    if let Some(bug) = plant {
        command.env("SWITCHBOARD_PLANT", bug);
    }
    let mut strace = command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("strace is installed");
    let mut lines = BufReader::new(strace.stdout.take().unwrap()).lines();
    let traced = Traced { group: strace.id().unwrap(), strace };
    let line = timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().expect("the server starts");
    let address = line.strip_prefix("listening on http://").expect("its first line names its address").to_owned();
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (traced, address)
}

/// Sends from one socket, some in flight at once, until all are accepted.
async fn send(address: &str, token: &str, to: &str) -> usize {
    let (mut socket, _) = tokio_tungstenite::connect_async(format!("ws://{address}/ws")).await.unwrap();
    socket.send(Message::text(format!(r#"{{"type":"hello","token":"{token}","device":"d","cursor":0}}"#))).await.unwrap();
    let (mut sent, mut accepted) = (0, 0);
    while accepted < SENDS_EACH {
        while sent < SENDS_EACH && sent - accepted < IN_FLIGHT {
            let id = Uuid::now_v7();
            let frame = format!(r#"{{"type":"send","id":"{id}","to":"{to}","kind":"text","body":{{"text":"message {sent}"}}}}"#);
            socket.send(Message::text(frame)).await.unwrap();
            sent += 1;
        }
        let frame = timeout(PATIENCE, socket.next()).await.expect("an answer in time").expect("open").unwrap();
        let Message::Text(text) = frame else { continue };
        assert!(!text.contains(r#""type":"refused""#) && !text.contains(r#""type":"error""#), "{text}");
        accepted += usize::from(text.contains(r#""type":"accepted""#));
    }
    accepted
}

/// One system call: the lines on which it began and ended.
#[derive(Debug)]
struct Call {
    name: String,
    path: String,
    bytes: Vec<u8>,
    begin: usize,
    end: usize,
    good: bool,
}

/// Reads a trace. A line is an instant: a call that another thread's call fell into is cut in two lines by strace.
fn calls(trace: &str) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    let mut open: HashMap<&str, usize> = HashMap::new();
    for (at, line) in trace.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        let good = rest.rsplit_once(" = ").is_some_and(|(_, result)| !result.starts_with('-') && !result.starts_with('?'));
        if rest.starts_with("<... ") {
            if let Some(call) = open.remove(thread).and_then(|at| calls.get_mut(at)) {
                (call.end, call.good) = (at, good);
            }
            continue;
        }
        let Some((name, arguments)) = rest.split_once('(') else { continue };
        let unfinished = rest.contains("<unfinished ...>");
        let path = arguments.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map_or("", |(path, _)| path);
        let bytes = arguments.split('"').skip(1).step_by(2).flat_map(decode).collect();
        let path = if path.starts_with("\\x") { String::from_utf8_lossy(&decode(path)).into_owned() } else { path.to_owned() };
        let end = if unfinished { usize::MAX } else { at };
        if unfinished {
            open.insert(thread, calls.len());
        }
        calls.push(Call { name: name.to_owned(), path, bytes, begin: at, end, good: good && !unfinished });
    }
    calls
}

/// `\x41\x42` as bytes.
fn decode(hex: &str) -> Vec<u8> {
    hex.split("\\x").skip(1).filter_map(|byte| u8::from_str_radix(byte.get(..2)?, 16).ok()).collect()
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Ids of the `accepted` frames in what went into a socket.
fn accepted_in(bytes: &[u8]) -> Vec<Uuid> {
    let text = String::from_utf8_lossy(bytes);
    let frames = text.split(r#""type":"accepted""#).skip(1);
    frames.filter_map(|rest| rest.split_once(r#""id":""#)?.1.get(..36)?.parse().ok()).collect()
}

/// How many `accepted` frames there are, if each came after its fsync; else what is wrong.
fn check(trace: &str) -> Result<usize, String> {
    let calls = calls(trace);
    let journal = |call: &&Call| call.path.ends_with(".jnl");
    let is_sync = |call: &&Call| call.name == "fsync" || call.name == "fdatasync";
    let syncs: Vec<_> = calls.iter().filter(journal).filter(is_sync).filter(|call| call.good).collect();
    let writes: Vec<_> = calls.iter().filter(journal).filter(|call| !is_sync(call)).collect();
    let mut count = 0;
    for answer in calls.iter().filter(|call| call.path.contains("socket") || call.path.contains("TCP")) {
        for id in accepted_in(&answer.bytes) {
            count += 1;
            let with_id = |call: &&&Call| contains(&call.bytes, id.as_bytes());
            let Some(written) = writes.iter().filter(with_id).map(|call| call.end).max() else {
                return Err(format!("{id} was accepted and is in no journal write"));
            };
            if !syncs.iter().any(|sync| sync.begin > written && sync.end < answer.begin) {
                return Err(format!(
                    "{id} was accepted on line {} and written until line {written}, with no fsync between",
                    answer.begin
                ));
            }
        }
    }
    Ok(count)
}

#[test]
fn the_reader_of_traces_sees_order() {
    let id: Uuid = "01932f6e-5c1e-7c3a-9d4e-1f2a3b4c5d6e".parse().unwrap();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
    let write = format!("7 write(9</d/0.jnl>, \"{}\", 16", hex(id.as_bytes()));
    let frame = format!(r#"{{"type":"accepted","id":"{id}"}}"#);
    let answer = format!("8 writev(12<socket:[1]>, [{{iov_base=\"{}\", iov_len=9}}], 1) = 9", hex(frame.as_bytes()));
    let good = format!(
        "{write}) = 16\n7 fdatasync(9</d/0.jnl> <unfinished ...>\n8 write(1, \"\\x41\", 1) = 1\n7 <... fdatasync resumed>) = 0\n{answer}"
    );
    assert_eq!(check(&good), Ok(1));
    let early = format!("{write}) = 16\n7 fdatasync(9</d/0.jnl> <unfinished ...>\n{answer}\n7 <... fdatasync resumed>) = 0");
    assert!(check(&early).is_err(), "answered while the fsync ran");
    let failed = format!("{write}) = 16\n7 fdatasync(9</d/0.jnl>) = -1 EIO\n{answer}");
    assert!(check(&failed).is_err(), "the fsync failed");
    let late = format!("7 fdatasync(9</d/0.jnl> <unfinished ...>\n{write}) = 16\n7 <... fdatasync resumed>) = 0\n{answer}");
    assert!(check(&late).is_err(), "the fsync began before the write");
    let other = format!("{write}) = 16\n7 fdatasync(9</d/devices.sqlite-wal>) = 0\n{answer}");
    assert!(check(&other).is_err(), "another file");
    assert!(check(&answer).is_err(), "never written");
}
