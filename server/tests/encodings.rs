//! JSON and Protobuf beside each other: whoever is attached, in whatever encoding, sees the same mailbox.

mod support;

use loadtest::client::{Client, Target};
use loadtest::frame::{Body, ClientFrame, Encoding, Event, Hello, Send, ServerFrame, direct_name};
use support::Stand;
use uuid::Uuid;

const ENCODINGS: [Encoding; 2] = [Encoding::Json, Encoding::Proto];

async fn attach(target: &Target, encoding: Encoding, device: &str, cursor: Option<u64>) -> Client {
    let mut client = Client::connect(&target.clone().with_encoding(encoding)).await.expect("the server lets us in");
    client.hello(Hello { device, cursor, epoch: None }).await.expect("a welcome");
    client
}

/// The next frame of a kind, others passed over.
async fn next<T>(client: &mut Client, pick: impl Fn(ServerFrame) -> Option<T>) -> T {
    loop {
        if let Some(picked) = pick(client.next().await.expect("the connection stands")) {
            return picked;
        }
    }
}

fn event(frame: ServerFrame) -> Option<Event> {
    if let ServerFrame::Event(event) = frame { Some(event) } else { None }
}

/// So many events, in words.
async fn events(client: &mut Client, count: usize) -> Vec<String> {
    let mut seen = Vec::new();
    for _ in 0..count {
        seen.push(format!("{:?}", next(client, event).await));
    }
    seen
}

async fn say(client: &mut Client, text: &str, id: Uuid) -> ServerFrame {
    client.write(&ClientFrame::Send(Send { id, to: "u:2", kind: "text", body: Body { text } })).await.expect("it is written");
    let of_this = |frame: &ServerFrame| match frame {
        ServerFrame::Accepted { id: other, .. } => *other == id,
        ServerFrame::Refused(refused) => refused.id == id,
        _ => false,
    };
    next(client, |frame| of_this(&frame).then_some(frame)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn devices_of_both_encodings_see_the_same() {
    let mut stand = Stand::new(&[]);
    let accounts = stand.accounts(2).await;
    let server = stand.start().await;
    let target = stand.target().await;
    let [ann, bob] = [0, 1].map(|index: usize| target.with_token(&accounts[index].token));

    // two devices of each that are pushed to, one in each encoding
    let mut pushed = Vec::new();
    for (name, user) in [("ann", &ann), ("bob", &bob)] {
        for encoding in ENCODINGS {
            let mut client = attach(user, encoding, &format!("{name}-{}", encoding.name()), Some(0)).await;
            next(&mut client, |frame| matches!(frame, ServerFrame::Live { head: 0 }).then_some(())).await;
            pushed.push((name, client));
        }
    }
    let text = |encoding: Encoding| format!("from {}, grüß dich \u{1f44b} \"\\\n", encoding.name());
    for encoding in ENCODINGS {
        let mut sender = attach(&ann, encoding, "sender", None).await;
        let id = Uuid::now_v7();
        let accepted = say(&mut sender, &text(encoding), id).await;
        assert!(matches!(accepted, ServerFrame::Accepted { conversation, .. } if conversation == direct_name(1, 2)));
        let empty = say(&mut sender, "", Uuid::now_v7()).await;
        assert!(matches!(empty, ServerFrame::Refused(refused) if refused.code == "empty" && refused.is_final));
        sender.close().await;
    }
    let mut all = Vec::new();
    for (name, client) in &mut pushed {
        let seen = events(client, ENCODINGS.len()).await;
        for (said, encoding) in seen.iter().zip(ENCODINGS) {
            assert!(said.contains(&format!("{:?}", text(encoding))), "{name}: {said}");
        }
        // both have the same two events, and nothing else
        assert!(all.is_empty() || all == seen, "{name}: {seen:?} beside {all:?}");
        all = seen;
    }
    // read from storage, by a device that was not there
    for encoding in ENCODINGS {
        let mut client = attach(&bob, encoding, &format!("late-{}", encoding.name()), Some(0)).await;
        assert_eq!(events(&mut client, ENCODINGS.len()).await, all, "{}", encoding.name());
    }
    let mut pages = Vec::new();
    for encoding in ENCODINGS {
        let mut client = attach(&bob, encoding, "reader", None).await;
        let page = client.history(&direct_name(1, 2), None).await.expect("a page");
        assert_eq!(page.events.len(), ENCODINGS.len());
        client.write(&ClientFrame::Conversations { before: None, limit: 10 }).await.expect("it is written");
        let list = next(&mut client, |frame| if let ServerFrame::Conversations(list) = frame { Some(list) } else { None }).await;
        assert_eq!(list.conversations.len(), 1);
        pages.push(format!("{page:?} {list:?}"));
    }
    assert_eq!(pages[0], pages[1]);
    server.kill().await;
}
