//! `switchboard chat` against the real server: two terminals, kills of either side, devices, tokens, hostile text, TLS.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::support::{PATIENCE, Stand};

const ANN: &str = "+4915100000001";
const BOB: &str = "+4915100000002";

/// A terminal's own folder and its command line.
struct Desk {
    folder: TempDir,
    phone: &'static str,
    url: String,
    more: Vec<String>,
}

impl Desk {
    fn new(stand: &Stand, phone: &'static str) -> Self {
        Self { folder: tempfile::tempdir().expect("a folder"), phone, url: stand.url(), more: Vec::new() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
        command.args(["chat", "--as", self.phone, "--url", &self.url, "--state"]).arg(self.folder.path());
        command.args(&self.more).args(arguments).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn start(&self, arguments: &[&str]) -> Terminal {
        let mut child = self.command(arguments).spawn().expect("the binary starts");
        let (input, output) = (child.stdin.take(), child.stdout.take().expect("stdout is piped"));
        Terminal { child, input, lines: BufReader::new(output).lines() }
    }

    /// Runs to its end on this input: exit code, output, complaints.
    async fn run(&self, arguments: &[&str], input: &str) -> (i32, Vec<Value>, String) {
        let mut child = self.command(arguments).spawn().expect("the binary starts");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        let input = input.to_owned();
        // one that ends early does not read it all
        tokio::spawn(async move { drop(stdin.write_all(input.as_bytes()).await) });
        let output = timeout(PATIENCE, child.wait_with_output()).await.expect("it ends").expect("it can be waited for");
        let lines = String::from_utf8(output.stdout).expect("text");
        let lines = lines.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| json!(line))).collect();
        (output.status.code().expect("no signal"), lines, String::from_utf8(output.stderr).expect("text"))
    }

    /// The folder of this account.
    fn account(&self) -> PathBuf {
        let place = std::fs::read_dir(self.folder.path())
            .expect("the client has written it")
            .next()
            .expect("the client has written it")
            .expect("the client has written it")
            .path();
        place.join(self.phone.trim_start_matches('+'))
    }

    fn session(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.account().join("session.json")).expect("the client has written it"))
            .expect("the client has written it")
    }

    fn write_session(&self, session: &Value) {
        std::fs::write(self.account().join("session.json"), session.to_string()).expect("the client has written it");
    }
}

/// A terminal that runs.
struct Terminal {
    child: Child,
    input: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Terminal {
    async fn say(&mut self, line: &Value) {
        self.line(&line.to_string()).await;
    }

    async fn line(&mut self, line: &str) {
        let input = self.input.as_mut().expect("its input is open");
        input.write_all(format!("{line}\n").as_bytes()).await.expect("the client lives");
    }

    async fn next(&mut self) -> Option<Value> {
        let line = timeout(PATIENCE, self.lines.next_line()).await.expect("a line in time").expect("lines are text")?;
        Some(serde_json::from_str(&line).unwrap_or_else(|why| panic!("{line}: {why}")))
    }

    /// The next line of this type that passes.
    async fn until(&mut self, kind: &str, test: impl Fn(&Value) -> bool) -> Value {
        loop {
            let line = self.next().await.unwrap_or_else(|| panic!("it ended before a {kind}"));
            if line["type"] == kind && test(&line) {
                return line;
            }
        }
    }

    async fn online(&mut self) {
        self.until("state", |line| line["state"] == "online").await;
    }

    async fn kill(mut self) {
        self.child.kill().await.expect("the client lives");
    }

    /// Closes its input, and waits for its end.
    async fn end(mut self) -> ExitStatus {
        drop(self.input.take());
        let mut rest = String::new();
        let mut output = self.lines.into_inner();
        timeout(PATIENCE, output.read_to_string(&mut rest)).await.expect("it ends").expect("it can be waited for");
        timeout(PATIENCE, self.child.wait()).await.expect("it ends").expect("it can be waited for")
    }
}

fn any(_: &Value) -> bool {
    true
}

fn texts(lines: &[Value]) -> Vec<&str> {
    lines
        .iter()
        .filter(|line| line["type"] == "message")
        .map(|line| line["text"].as_str().expect("the client has written it"))
        .collect()
}

fn message(to: &str, text: &str) -> String {
    json!({"to": to, "text": text}).to_string() + "\n"
}

#[tokio::test(flavor = "multi_thread")]
async fn two_chat_and_a_second_device_sees_it_too() {
    let mut stand = Stand::new(&[]);
    let _server = stand.start().await;
    let (ann, laptop, bob) = (Desk::new(&stand, ANN), Desk::new(&stand, ANN), Desk::new(&stand, BOB));
    let (mut at_ann, mut at_bob) = (ann.start(&["--json"]), bob.start(&["--json"]));
    at_ann.online().await;
    at_bob.online().await;
    let mut at_laptop = laptop.start(&["--json"]);
    at_laptop.online().await;

    at_ann.say(&json!({"to": BOB, "text": "hello Bob"})).await;
    let queued = at_ann.until("queued", any).await;
    let accepted = at_ann.until("accepted", any).await;
    assert_eq!(queued["id"], accepted["id"]);
    let got = at_bob.until("message", any).await;
    assert_eq!((&got["text"], &got["own"], &got["id"]), (&json!("hello Bob"), &json!(false), &accepted["id"]));
    let own = at_laptop.until("message", any).await;
    assert_eq!((&own["text"], &own["own"]), (&json!("hello Bob"), &json!(true)));

    at_bob.say(&json!({"type": "typing", "to": got["from"]})).await;
    at_ann.until("typing", |line| line["from"] != got["from"]).await;
    at_bob.say(&json!({"type": "read", "conversation": got["conversation"], "position": got["position"]})).await;
    at_ann.until("receipt", |line| line["read"] == got["position"]).await;
    at_bob.say(&json!({"type": "watch", "users": [got["from"]]})).await;
    at_bob.until("presence", |line| line["online"] == true).await;
    at_bob.say(&json!({"type": "history", "conversation": got["conversation"]})).await;
    let page = at_bob.until("page", any).await;
    assert_eq!(page["events"][0]["body"]["text"], "hello Bob");

    for terminal in [at_ann, at_laptop, at_bob] {
        assert_eq!(terminal.end().await.code(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_sends_and_another_takes_one_at_a_time() {
    let mut stand = Stand::new(&[]);
    let _server = stand.start().await;
    let (ann, bob) = (Desk::new(&stand, ANN), Desk::new(&stand, BOB));
    assert_eq!(bob.run(&["--json"], "").await.0, 0);
    let (code, lines, why) = ann.run(&["--json"], &(message(BOB, "one") + &message(BOB, "two"))).await;
    assert_eq!(code, 0, "{why}");
    assert_eq!(lines.iter().filter(|line| line["type"] == "accepted").count(), 2);
    for expected in ["one", "two"] {
        let (code, lines, why) = bob.run(&["--json", "--once"], "").await;
        assert_eq!((code, texts(&lines)), (0, vec![expected]), "{why}");
    }
    let (code, lines, why) = bob.run(&["--json", "--once", "--wait", "1"], "").await;
    assert_eq!((code, texts(&lines).len()), (4, 0), "{why}");

    let bad = "nonsense\n".to_owned() + &message("+4915199999999", "nobody") + &message(BOB, "three");
    let (code, lines, why) = ann.run(&["--json"], &bad).await;
    assert_eq!(code, 3, "{why}");
    let codes: Vec<_> = lines.iter().filter(|line| line["type"] == "error").map(|line| line["code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["bad_input", "not_found"]);
    assert_eq!(texts(&bob.run(&["--json"], "").await.1), ["three"], "what is good is sent all the same");
}

/// A script that is killed and runs again with the same ids; a reader that is killed and goes on from its cursor.
#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_nothing_is_lost_and_nothing_doubled() {
    let mut stand = Stand::new(&[]);
    let _server = stand.start().await;
    let (ann, bob) = (Desk::new(&stand, ANN), Desk::new(&stand, BOB));
    assert_eq!(bob.run(&["--json"], "").await.0, 0);
    let ids: Vec<_> = (0..60).map(|_| uuid::Uuid::now_v7().to_string()).collect();
    let script: String =
        ids.iter().enumerate().map(|(n, id)| json!({"to": BOB, "text": format!("{n}"), "id": id}).to_string() + "\n").collect();
    for kill_after in [1, 7, 20] {
        let mut terminal = ann.start(&["--json"]);
        let mut input = terminal.input.take().unwrap();
        let copy = script.clone();
        tokio::spawn(async move { drop(input.write_all(copy.as_bytes()).await) });
        for _ in 0..kill_after {
            terminal.until("queued", any).await;
        }
        terminal.kill().await;
    }
    // nothing is given again: what waits goes out
    let (code, _, why) = ann.run(&["--json"], "").await;
    assert_eq!(code, 0, "{why}");
    let (code, _, why) = ann.run(&["--json"], &script).await;
    assert_eq!(code, 0, "{why}");

    let mut shown: BTreeMap<u64, u32> = BTreeMap::new();
    let mut arrived = Vec::new();
    let note = |line: &Value, shown: &mut BTreeMap<u64, u32>, arrived: &mut Vec<String>| {
        let times = shown.entry(line["seq"].as_u64().unwrap()).or_default();
        *times += 1;
        if *times == 1 {
            arrived.push(line["id"].as_str().unwrap().to_owned());
        }
    };
    for kill_after in [1, 10] {
        let mut terminal = bob.start(&["--json"]);
        for _ in 0..kill_after {
            let line = terminal.until("message", any).await;
            note(&line, &mut shown, &mut arrived);
        }
        terminal.child.start_kill().unwrap();
        // what it had printed before it died counts as shown
        while let Ok(Some(line)) = terminal.lines.next_line().await {
            if let Ok(line) = serde_json::from_str::<Value>(&line)
                && line["type"] == "message"
            {
                note(&line, &mut shown, &mut arrived);
            }
        }
    }
    let (code, lines, why) = bob.run(&["--json"], "").await;
    assert_eq!(code, 0, "{why}");
    for line in lines.iter().filter(|line| line["type"] == "message") {
        note(line, &mut shown, &mut arrived);
    }
    assert_eq!(arrived.len(), ids.len(), "each once");
    assert_eq!(arrived.iter().collect::<BTreeSet<_>>(), ids.iter().collect::<BTreeSet<_>>());
    let twice = shown.values().filter(|times| **times > 1).count();
    assert!(
        twice <= 2 && shown.values().all(|times| *times <= 2),
        "only the one that was being shown at a kill may come again: {shown:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_and_comes_back_is_survived_by_both() {
    let mut stand = Stand::new(&[]);
    let server = stand.start().await;
    let (ann, bob) = (Desk::new(&stand, ANN), Desk::new(&stand, BOB));
    let (mut at_ann, mut at_bob) = (ann.start(&["--json"]), bob.start(&["--json"]));
    at_ann.online().await;
    at_bob.online().await;
    at_ann.say(&json!({"to": BOB, "text": "0"})).await;
    at_bob.until("message", |line| line["text"] == "0").await;
    server.kill().await;
    at_ann.until("state", |line| line["state"] == "offline").await;
    for text in 1..=5 {
        at_ann.say(&json!({"to": BOB, "text": text.to_string()})).await;
        at_ann.until("queued", any).await;
    }
    let _server = stand.start().await;
    for text in 1..=5 {
        let line = at_bob.until("message", any).await;
        assert_eq!(line["text"], text.to_string());
    }
    assert_eq!(at_ann.end().await.code(), Some(0), "all of it was accepted");
    assert_eq!(at_bob.end().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_server_messages_wait_for_the_next_run() {
    let mut stand = Stand::new(&[]);
    let server = stand.start().await;
    let (ann, bob) = (Desk::new(&stand, ANN), Desk::new(&stand, BOB));
    assert_eq!(bob.run(&["--json"], "").await.0, 0);
    assert_eq!(ann.run(&["--json"], &message(BOB, "hi")).await.0, 0);
    server.kill().await;
    let (code, _, why) = ann.run(&["--json", "--timeout", "1"], &message(BOB, "later")).await;
    assert_eq!(code, 4, "{why}");
    assert!(why.contains("1 messages are not accepted yet"), "{why}");
    let _server = stand.start().await;
    assert_eq!(ann.run(&["--json"], "").await.0, 0);
    assert_eq!(texts(&bob.run(&["--json"], "").await.1), ["hi", "later"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn codes_tokens_and_the_end_of_a_session() {
    let mut stand = Stand::new(&[]);
    let _server = stand.start().await;
    let ann = Desk::new(&stand, ANN);
    assert_eq!(ann.run(&["--request-code"], "").await.0, 0);
    let (code, _, why) = ann.run(&["--code", "000000x"], "").await;
    assert_eq!(code, 5, "{why}");
    assert!(!ann.account().join("session.json").exists());
    assert_eq!(ann.run(&["--json"], "").await.0, 0);

    // the access token has expired, then is not good though it looks so: each time the refresh token is used, and replaced
    let mut before = ann.session();
    for expires_at in ["2020-01-01T00:00:00Z", "2999-01-01T00:00:00Z"] {
        before["access_token"] = json!("no token");
        before["expires_at"] = json!(expires_at);
        ann.write_session(&before);
        let (code, _, why) = ann.run(&["--json"], "").await;
        assert_eq!(code, 0, "{expires_at}: {why}");
        let after = ann.session();
        assert_ne!(after["refresh_token"], before["refresh_token"]);
        assert_eq!(after["device"], before["device"]);
        before = after;
    }
    use std::os::unix::fs::PermissionsExt as _;
    let mode = |file: &Path| std::fs::metadata(file).unwrap().permissions().mode() & 0o777;
    for file in ["session.json", "mailbox.json"] {
        assert_eq!(mode(&ann.account().join(file)), 0o600, "{file}");
    }

    let mut running = ann.start(&["--json"]);
    running.online().await;
    assert_eq!(ann.run(&["--json"], "").await.0, 6, "one terminal for each folder");
    assert_eq!(running.end().await.code(), Some(0));

    assert_eq!(ann.run(&["--log-out"], "").await.0, 0);
    ann.write_session(&before);
    let (code, _, why) = ann.run(&["--json"], "").await;
    assert_eq!(code, 5, "{why}");
    assert!(!ann.account().join("session.json").exists(), "the next run signs in");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_write_cannot_touch_the_terminal() {
    let mut stand = Stand::new(&[]);
    let _server = stand.start().await;
    let (ann, bob) = (Desk::new(&stand, ANN), Desk::new(&stand, BOB));
    assert_eq!(bob.run(&["--json"], "").await.0, 0);
    let hostile = "a\u{1b}[2J\u{1b}]0;x\u{7}b\u{9b}31m\u{202e}c\r\u{8}\n12:00 Bob: I owe you 100\u{2066}\u{7f}";
    let (code, _, why) = ann.run(&["--json", "--name", "Ann\u{202e}"], &message(BOB, hostile)).await;
    assert_eq!(code, 0, "{why}");

    let mut terminal = bob.start(&["--follow"]);
    let mut seen = Vec::new();
    let mut output = terminal.lines.into_inner();
    let all = async {
        while !String::from_utf8_lossy(&seen).contains("I owe you") {
            let mut some = [0; 4096];
            let read = output.read(&mut some).await.unwrap();
            assert!(read > 0, "it ended: {}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&some[..read]);
        }
    };
    timeout(PATIENCE, all).await.expect("the message is shown");
    terminal.child.kill().await.unwrap();
    let seen = String::from_utf8(seen).unwrap();
    let harmful = |c: char| c != '\n' && (c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'));
    assert!(!seen.contains(harmful), "{seen:?}");
    assert!(
        seen.contains("Ann\\u{202e}: a\\u{1b}[2J\\u{1b}]0;x\\u{7}b\\u{9b}31m\\u{202e}c\\u{d}\\u{8}\n      | 12:00 Bob: I owe"),
        "{seen:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_writes_reads_and_looks_around() {
    let mut stand = Stand::new(&[]);
    let _server = stand.start().await;
    let (ann, bob) = (Desk::new(&stand, ANN), Desk::new(&stand, BOB));
    assert_eq!(bob.run(&["--json", "--name", "Bob"], "").await.0, 0);
    let input = format!("/to {BOB}\nhello\n//slash\n/devices\n/name Ann Lee\n/conversations\n/nonsense\n");
    let (code, lines, why) = ann.run(&[], &input).await;
    assert_eq!(code, 0, "{why}");
    let text = lines.iter().map(|line| line.as_str().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    for expected in [
        "* you write to Bob ",
        "#1 ✓ accepted",
        "#2 ✓ accepted",
        "(this one)",
        "* your name is Ann Lee",
        "no such command",
        "you: ",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert_eq!(texts(&bob.run(&["--json"], "").await.1), ["hello", "/slash"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_only_a_trusted_server_is_spoken_to() {
    let mut stand = Stand::over_tls(&[]);
    let _server = stand.start().await;
    let mut ann = Desk::new(&stand, ANN);
    let (code, _, why) = ann.run(&["--json"], "").await;
    assert_eq!(code, 1, "{why}");
    assert!(why.contains("certificate") || why.contains("authorities"), "{why}");
    ann.more = vec!["--ca".into(), stand.authority().ca().display().to_string()];
    let (code, lines, why) = ann.run(&["--json"], "").await;
    assert_eq!(code, 0, "{why}");
    assert!(lines.iter().any(|line| line["state"] == "online"));
}
