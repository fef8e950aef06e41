//! The load generator against the real server: every scenario it ships, tokens it makes itself, and a server that stalls.

mod support;

use loadtest::fleet::{self, Plan};
use loadtest::frame::Encoding;
use loadtest::prepare::{self, TokenSource};
use loadtest::report::Report;
use loadtest::scenario::{self, BUILT_IN, Scenario, Span};
use loadtest::series::Kind;
use loadtest::tls::Authority;
use support::{PATIENCE, Server, Stand};

const USERS: u64 = 24;

async fn plan(stand: &Stand, scenario: Scenario) -> Plan {
    Plan {
        accounts: stand.accounts(USERS).await,
        urls: vec![stand.url()],
        authority: stand.trusted(),
        workers: 0,
        agents: Vec::new(),
        agent_token: String::new(),
        servers: Vec::new(),
        find_servers: true,
        fault_command: None,
        spread_sources: true,
        scenario,
    }
}

async fn run(plan: &Plan) -> Report {
    fleet::run(plan, |_| ()).await.expect("the load can be set up")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn every_scenario_is_clean() {
    let mut stand = Stand::new(&[]);
    let mut server = stand.start().await;
    for (name, _) in BUILT_IN {
        let scenario = scenario::load(name).expect("a built-in scenario").smoke();
        let mut plan = plan(&stand, scenario).await;
        let report = if *name == "restart" {
            plan.fault_command = Some(format!("kill -9 {}", server.process().id()));
            let (report, restarted) = tokio::join!(run(&plan), restart(&mut stand, server));
            server = restarted;
            assert_eq!(report.counts.broken, report.scenario.sockets as u64, "the kill was felt: {report}");
            report
        } else {
            run(&plan).await
        };
        println!("{report}\n");
        assert!(report.passes(), "{report}\n{}", stand.tail());
        let surge = if report.scenario.surge.is_some() { 100 } else { 0 };
        assert!(report.scenario.load.is_none() || report.counts.due == 230 + surge, "{report}");
        let costs = report.server.as_ref().expect("the server's process was found by its address");
        assert!(costs.marks.iter().all(|mark| mark.memory > 0), "{report}");
    }
    server.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn direct_is_clean_in_protobuf() {
    let mut stand = Stand::new(&[]);
    let server = stand.start().await;
    let mut scenario = scenario::load("direct").expect("a built-in scenario").smoke();
    scenario.encoding = Encoding::Proto;
    let report = run(&plan(&stand, scenario).await).await;
    println!("{report}\n");
    assert!(report.passes() && report.counts.due == 230, "{report}\n{}", stand.tail());
    let upgrades = |encoding: &str| format!("switchboard_upgrades_total{{encoding=\"{encoding}\"}} ");
    let metrics = stand.metrics().await;
    assert!(metrics.contains(&upgrades("proto")) && !metrics.contains(&upgrades("json")), "{metrics}");
    server.kill().await;
}

/// Waits until the server was killed, and starts it again.
async fn restart(stand: &mut Stand, server: Server) -> Server {
    server.ended(PATIENCE).await;
    stand.start().await
}

/// An open loop charges a stall to every send that was due meanwhile. A closed one would have sent nothing, and shown one slow answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_stall_of_a_second_is_seen() {
    let mut stand = Stand::new(&[]);
    let server = stand.start().await;
    let mut scenario = scenario::load("direct").expect("a built-in scenario").smoke();
    scenario.duration = Span::seconds(3);
    scenario.fault = Some(scenario::Fault { after: Span::millis(800), every: None });
    let pid = server.process().id();
    let mut plan = plan(&stand, scenario).await;
    plan.fault_command = Some(format!("kill -STOP {pid}; sleep 1; kill -CONT {pid}"));
    let report = run(&plan).await;
    println!("{report}");
    assert!(report.passes(), "{report}\n{}", stand.tail());
    for kind in [Kind::Accepted, Kind::Delivered] {
        let buckets = &report.series[&kind].buckets;
        let late: u64 = buckets.iter().filter(|(micros, _)| *micros >= 500_000).map(|(_, count)| count).sum();
        // 100 a second: those of the first half of the stall waited for at least the other half.
        assert!(late >= 45, "{late} of {} took half a second: {report}", kind.name());
        assert!(report.series[&kind].max_ms >= 950.0, "{report}");
    }
    server.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn tokens_are_made_by_the_servers_binary_or_asked_for() {
    let mut stand = Stand::new(&[]);
    let server = stand.start().await;
    let url = format!("ws://{}/ws", stand.address());
    let binary = Some(env!("CARGO_BIN_EXE_switchboard").into());
    let signed = TokenSource { switchboard: binary, data: Some(stand.data()), first_user: 5, ..TokenSource::default() };
    let asked = TokenSource { first_user: 5, ..TokenSource::default() };
    for source in [signed, asked] {
        let accounts = prepare::accounts(&source, 3, &url).await.expect("tokens");
        assert_eq!(accounts.iter().map(|account| account.user).collect::<Vec<_>>(), [5, 6, 7]);
        for encoding in [Encoding::Json, Encoding::Proto] {
            prepare::probe(&url, &Authority::default(), &accounts[2], encoding).await.expect("the server takes the token");
        }
    }
    let mut forged = stand.accounts(1).await.remove(0);
    forged.token.push('x');
    let why = prepare::probe(&url, &Authority::default(), &forged, Encoding::Json).await.expect_err("a bad token").to_string();
    assert!(why.contains("does not take the token") && why.contains("401"), "{why}");
    server.kill().await;
}

/// Scenarios run over TLS as they do without, and a server that nobody vouches for is told apart from one that is not there.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn scenarios_over_tls_are_clean_and_a_certificate_must_verify() {
    let mut stand = Stand::over_tls(&[]);
    let server = stand.start().await;
    for name in ["direct", "reconnect-storm", "slow-readers"] {
        let scenario = scenario::load(name).expect("a built-in scenario").smoke();
        let report = run(&plan(&stand, scenario).await).await;
        assert!(report.passes(), "{report}\n{}", stand.tail());
    }

    let account = stand.accounts(1).await.remove(0);
    let probe = async |url: &str, authority: Authority| match prepare::probe(url, &authority, &account, Encoding::Json).await {
        Ok(_) => "welcome".to_owned(),
        Err(why) => why.to_string(),
    };
    let (url, trusted) = (stand.url(), stand.trusted());
    assert_eq!(probe(&url, trusted.clone()).await, "welcome");
    let other = Stand::over_tls(&[]);
    for stranger in [Authority::default(), other.trusted()] {
        let why = probe(&url, stranger).await;
        assert!(why.contains("nobody vouches") && why.contains("--ca FILE") && why.contains("does not verify"), "{why}");
    }
    stand.authority().issue(&["chat.example.org"]);
    server.hang_up().await;
    let another_name = async { while !probe(&url, trusted.clone()).await.contains("not valid for name") {} };
    tokio::time::timeout(PATIENCE, another_name).await.expect("the certificate is of another name now");
    stand.authority().issue(&["127.0.0.1"]);
    server.hang_up().await;
    let own_name = async { while probe(&url, trusted.clone()).await != "welcome" {} };
    tokio::time::timeout(PATIENCE, own_name).await.expect("the certificate is ours again");
    let why = probe(&url.replace("wss:", "ws:"), trusted.clone()).await;
    assert!(why.contains("is it wss://?"), "{why}");
    let mut plain = Stand::new(&[]);
    let beside = plain.start().await;
    let why = probe(&plain.url().replace("ws:", "wss:"), trusted).await;
    assert!(why.contains("not over TLS"), "{why}");
    let asked = TokenSource { first_user: 5, authority: stand.trusted(), ..TokenSource::default() };
    assert_eq!(prepare::accounts(&asked, 1, &url).await.expect("tokens").len(), 1);
    beside.kill().await;
    server.kill().await;
}
