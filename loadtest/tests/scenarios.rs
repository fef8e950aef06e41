//! The load scenarios against a model that keeps the contract, and against models that break it.

#![allow(clippy::unwrap_used, reason = "a test may panic; the lint knows only functions marked as tests")]

mod model;

use loadtest::crew::Fault;
use loadtest::fleet::{self, Plan};
use loadtest::frame::Encoding;
use loadtest::prepare;
use loadtest::report::Report;
use loadtest::scenario::{self, BUILT_IN, Scenario, Span};
use loadtest::series::Kind;
use loadtest::tls::Authority;
use loadtest::tokens::Account;
use model::{Model, Plant};

fn plan(scenario: Scenario, address: std::net::SocketAddr) -> Plan {
    let users = 1..=scenario.users() as u64;
    Plan {
        accounts: users.map(|user| Account { user, token: user.to_string() }).collect(),
        urls: vec![format!("ws://{address}/ws")],
        authority: Authority::default(),
        workers: 0,
        agents: Vec::new(),
        agent_token: String::new(),
        servers: Vec::new(),
        find_servers: false,
        fault_command: Some("true".to_owned()),
        spread_sources: false,
        scenario,
    }
}

async fn run(scenario: Scenario, plant: Plant) -> Report {
    let (_model, address) = Model::start(plant, plant == Plant::Nothing).await;
    fleet::run(&plan(scenario, address), |_| ()).await.unwrap()
}

#[tokio::test]
async fn every_built_in_scenario_is_clean() {
    for (name, _) in BUILT_IN {
        let report = run(scenario::load(name).unwrap().smoke(), Plant::Nothing).await;
        assert!(report.passes(), "{name}: {report}");
        let surge = if report.scenario.surge.is_some() { 100 } else { 0 };
        let sends = if report.scenario.load.is_some() { 230 + surge } else { 0 };
        assert_eq!(report.counts.due, sends, "{name}: {report}");
        let count = |kind| report.series.get(&kind).map_or(0, |series| series.count);
        assert_eq!(count(Kind::Connect), report.scenario.sockets as u64, "{name}: everybody came: {report}");
        let comes_back = ["idle", "connect-storm", "reconnect-storm", "offline-drain", "churn", "retry-storm"];
        assert_eq!(count(Kind::Resume) > 0, comes_back.contains(name), "{name}: {report}");
        assert_eq!(count(Kind::Synced) > 0, *name == "multi-device", "{name}: {report}");
        if ["offline-drain", "slow-readers"].contains(name) {
            assert!(count(Kind::Backlog) > 0, "{name}: somebody was not reading: {report}");
        }
        assert_eq!(count(Kind::Attempt) > 0 && count(Kind::Recovered) > 0, *name == "overload", "{name}: {report}");
        assert!(sends == 0 || report.counts.put_back > 0, "{name}: the model refuses now and then: {report}");
    }
}

/// One-to-one messages for a second and more, so that every planted fault strikes.
fn direct() -> Scenario {
    let mut scenario = scenario::load("direct").unwrap().smoke();
    scenario.duration = Span::millis(1000);
    scenario.grace = Span::millis(500);
    scenario.load.as_mut().unwrap().rate = Some(400.0);
    scenario
}

#[tokio::test]
async fn what_is_measured_is_what_was_sent_in_the_measured_time() {
    let report = run(direct(), Plant::Nothing).await;
    assert!(report.passes(), "{report}");
    let count = |kind| report.series[&kind].count;
    assert_eq!((report.counts.due, count(Kind::Accepted), count(Kind::Delivered)), (520, 400, 400), "{report}");
}

#[tokio::test]
async fn a_loss_is_counted_and_named() {
    let report = run(direct(), Plant::Loss).await;
    assert!(!report.passes() && !report.is_true(), "{report}");
    let lost = report.found.count(Fault::Lost);
    assert!((10..=14).contains(&lost), "one in 37 of 520: {report}");
    assert_eq!(report.found.counts.values().sum::<u64>(), lost, "and nothing else: {report}");
    let sample = report.found.samples.first().unwrap();
    let id = sample.split_whitespace().nth(1).unwrap();
    assert_eq!(uuid::Uuid::parse_str(id).unwrap().get_version_num(), 7, "{sample}");
}

#[tokio::test]
async fn a_double_is_counted() {
    let mut scenario = direct();
    // The model breaks connections here and there: that is not what is judged.
    scenario.fault = Some(scenario::Fault { after: Span::seconds(60), every: None });
    let report = run(scenario, Plant::Double).await;
    assert!(report.found.count(Fault::Duplicate) > 0 && !report.passes(), "{report}");
    assert_eq!(report.found.count(Fault::Broken) + report.found.count(Fault::Lost), 0, "{report}");
}

#[tokio::test]
async fn a_hole_is_counted() {
    let report = run(direct(), Plant::Hole).await;
    assert!(report.found.count(Fault::Gap) > 0 && report.found.count(Fault::Lost) > 0, "{report}");
}

#[tokio::test]
async fn an_expectation_that_fails_fails_the_run() {
    let mut scenario = direct();
    scenario.expect = vec!["delivered.p50 < 1us".parse().unwrap(), "accepted.count >= 400".parse().unwrap()];
    let report = run(scenario, Plant::Nothing).await;
    assert!(report.is_clean() && !report.passes(), "{report}");
    assert_eq!(report.expectations.iter().map(|judged| judged.holds).collect::<Vec<_>>(), [false, true]);
}

/// What nobody could send is told, and does not spoil what was sent before and after it.
#[tokio::test]
async fn who_is_put_off_for_long_gives_up_and_the_next_is_not_late() {
    let mut scenario = direct();
    scenario.load.as_mut().unwrap().give_up = Some(Span::millis(100));
    scenario.surge = Some(scenario::Surge { factor: 1.0, after: Span::default(), lasts: Span::millis(700) });
    let report = run(scenario, Plant::Overload).await;
    assert!(report.passes() && report.counts.put_back > 0, "{report}");
    assert!((50..=250).contains(&report.counts.given_up), "half a second of 400 a second, but for what was under way: {report}");
    assert_eq!(report.counts.accepted + report.counts.given_up, 520, "{report}");
    let at = |kind: Kind, statistic| report.series[&kind].statistic(statistic).unwrap();
    assert!(at(Kind::Accepted, "max") > 0.3, "the first to be put off waited all the time: {report}");
    assert!(
        at(Kind::Attempt, "max") < at(Kind::Accepted, "max") && at(Kind::Recovered, "max") < at(Kind::Accepted, "max"),
        "{report}"
    );
}

#[tokio::test]
async fn a_server_that_is_not_ours_is_told_apart() {
    let account = Account { user: 1, token: "1".to_owned() };
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let why = prepare::probe(&format!("ws://{nobody}/ws"), &Authority::default(), &account, Encoding::Json)
        .await
        .unwrap_err()
        .to_string();
    assert!(why.contains("is the server running?"), "{why}");

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let echo = listener.local_addr().unwrap();
    tokio::spawn(async move {
        use futures_util::{SinkExt, StreamExt};
        let (stream, _) = listener.accept().await.unwrap();
        #[expect(clippy::result_large_err, reason = "the callback's type is tungstenite's")]
        let protocol = |_: &_, mut response: tokio_tungstenite::tungstenite::handshake::server::Response| {
            response.headers_mut().insert("sec-websocket-protocol", "switchboard.v1.json".parse().unwrap());
            Ok(response)
        };
        let mut socket = tokio_tungstenite::accept_hdr_async(stream, protocol).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            socket.send(message).await.unwrap();
        }
    });
    let why = prepare::probe(&format!("ws://{echo}/ws"), &Authority::default(), &account, Encoding::Json)
        .await
        .unwrap_err()
        .to_string();
    assert!(why.contains("not a Switchboard server"), "{why}");

    let (_model, model) = Model::start(Plant::Nothing, false).await;
    let stranger = Account { user: 2, token: "1".to_owned() };
    let why = prepare::probe(&format!("ws://{model}/ws"), &Authority::default(), &stranger, Encoding::Json)
        .await
        .unwrap_err()
        .to_string();
    assert!(why.contains("one of user 1"), "{why}");
    assert!(prepare::probe(&format!("ws://{model}/ws"), &Authority::default(), &account, Encoding::Json).await.is_ok());
}
