//! Guessing: codes by the thousand, and what an answer gives away.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::api::{Answer, Call, Device, ask, phone, post};
use crate::raw::Server;

const THREADS: u32 = 64;
const GUESSES: u32 = 10_000;

fn verify(phone: &str, code: &str, device: &str) -> Call {
    post("/v1/registrations/verify", &json!({"phone": phone, "code": code, "device": device}))
}

#[test]
fn ten_thousand_parallel_guesses_are_five() {
    let server = Server::start_with(&[
        ("SWITCHBOARD_GATEWAY__REQUESTS_PER_ADDRESS", "1000000"),
        ("SWITCHBOARD_ACCOUNTS__TRIES_PER_ADDRESS", "1000000"),
        ("SWITCHBOARD_ACCOUNTS__TRIES_PER_DEVICE", "1000000"),
    ]);
    let code = ask(&server, &phone(1));
    let right: u32 = code.parse().unwrap();
    let (next, address) = (AtomicU32::new(0), server.address());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let guess = next.fetch_add(1, Ordering::Relaxed)
                    && guess < GUESSES
                {
                    if guess != right {
                        let answer = verify(&phone(1), &format!("{guess:06}"), "a").send_to(address);
                        assert_eq!(answer.refusal(), (400, "bad_code"));
                    }
                }
            });
        }
    });
    assert_eq!(verify(&phone(1), &code, "a").send(&server).refusal(), (400, "bad_code"), "locked, even for the right one");
    assert!(server.counter("switchboard_code_tries_total{what=\"wrong\"}") >= u64::from(GUESSES) - 1);
    let fresh = ask(&server, &phone(1));
    assert_eq!(verify(&phone(1), &fresh, "a").send(&server).status, 200);
}

/// An answer without what differs for a reason that is no secret.
fn plain(answer: Answer) -> Answer {
    answer.timeless()
}

#[test]
fn known_and_unknown_numbers_get_the_same_answers() {
    let server = Server::start();
    Device::log_in(&server, &phone(1), "a");
    // through a proxy no code is shown, so that all of the answer can be compared
    let asking = |last| post("/v1/registrations", &json!({"phone": phone(last)})).header("X-Forwarded-For", "203.0.113.7");
    let mut known = asking(1).send(&server);
    while let Some(ms) = known.json["error"]["retry_after_ms"].as_u64() {
        std::thread::sleep(Duration::from_millis(ms));
        known = asking(1).send(&server);
    }
    let unknown = asking(2).send(&server);
    assert!(!known.text.contains("dev_code"), "{known:?}");
    assert_eq!(plain(known), plain(unknown));
    assert_eq!(plain(asking(1).send(&server)).json["error"]["code"], plain(asking(2).send(&server)).json["error"]["code"]);

    let wrong_for_known = verify(&phone(1), "000000", "a").send(&server);
    assert_eq!(wrong_for_known.refusal(), (400, "bad_code"));
    let unlike: [(&str, Call); 3] = [
        ("an unknown number with a code", verify(&phone(2), "000000", "a")),
        ("a number that never asked", verify(&phone(3), "000000", "a")),
        ("no code at all", verify(&phone(1), "", "a")),
    ];
    for (what, call) in unlike {
        assert_eq!(plain(call.send(&server)), plain(wrong_for_known.clone()), "{what}");
    }
}

#[test]
fn addresses_and_devices_have_limits_that_no_header_moves() {
    let server = Server::start_with(&[
        ("SWITCHBOARD_ACCOUNTS__CODES_PER_ADDRESS", "4"),
        ("SWITCHBOARD_ACCOUNTS__CODES_PER_DEVICE", "2"),
        ("SWITCHBOARD_ACCOUNTS__TRIES_PER_ADDRESS", "5"),
        ("SWITCHBOARD_ACCOUNTS__TRIES_PER_DEVICE", "3"),
        ("SWITCHBOARD_ACCOUNTS__LOOKUPS_PER_HOUR", "2"),
    ]);
    let asking = |last: u32, device: &str| {
        let call = post("/v1/registrations", &json!({"phone": phone(last), "device": device}));
        call.header("X-Forwarded-For", &format!("203.0.113.{last}")).send(&server)
    };
    assert_eq!([asking(1, "a").status, asking(2, "a").status, asking(3, "a").status], [202, 202, 429]);
    assert_eq!([asking(4, "b").status, asking(5, "c").status, asking(6, "d").status], [202, 202, 429]);
    let refused = asking(7, "e");
    assert_eq!(refused.refusal(), (429, "rate"));
    let wait: u64 = refused.headers["retry-after"].parse().unwrap();
    assert_eq!(wait, refused.json["error"]["retry_after_ms"].as_u64().unwrap().div_ceil(1000));
    let trying = |device: &str| verify(&phone(1), "000000", device).send(&server).status;
    assert_eq!([trying("a"), trying("a"), trying("a"), trying("a")], [400, 400, 400, 429]);
    assert_eq!([trying("b"), trying("b"), trying("b")], [400, 400, 429]);
    let look = || post("/v1/contacts/lookup", &json!({"phone": phone(9)})).by(&server.token(5)).send(&server).status;
    assert_eq!([look(), look(), look()], [404, 404, 429]);
}
