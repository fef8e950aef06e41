//! A gateway of a cluster, which has no accounts yet: its API says so, clearly and the same to everybody.

mod without_engines;

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use gateway::handshake::ClientAddress;
use gateway::node::now_ms;
use gateway::token::Claims;
use gateway::{Gateway, http};
use hyper::{Request, Response};
use protocol::UserId;
use tower::ServiceExt as _;

async fn ask(gateway: &Arc<Gateway>, method: &str, path: &str, token: Option<&str>) -> (u16, serde_json::Value) {
    let routes = http::routes(gateway, Arc::new(String::new));
    let mut request = Request::builder().method(method).uri(path).header("Content-Type", "application/json");
    if let Some(token) = token {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    let body = r#"{"phone":"+4915112345678","code":"123456","device":"a","refresh_token":"x"}"#;
    let mut request = request.header("Idempotency-Key", "k").body(Body::from(body)).expect("a request");
    request.extensions_mut().insert(ClientAddress([127, 0, 0, 1].into()));
    let response: Response<Body> = routes.oneshot(request).await.expect("an answer");
    let status = response.status().as_u16();
    let bytes = to_bytes(response.into_body(), 1 << 20).await.expect("a body");
    (status, serde_json::from_slice(&bytes).unwrap_or_default())
}

#[tokio::test]
async fn every_route_of_accounts_says_that_there_are_none() {
    let gateway = without_engines::gateway(without_engines::ports());
    let token = gateway.tokens.sign(&Claims::new(UserId::new(5).expect("a user"), None, now_ms() / 1000)).expect("a token");
    for (method, path) in [
        ("POST", "/v1/registrations"),
        ("POST", "/v1/registrations/verify"),
        ("POST", "/v1/sessions/refresh"),
        ("DELETE", "/v1/sessions/current"),
        ("GET", "/v1/devices"),
        ("DELETE", "/v1/devices/a"),
        ("GET", "/v1/me"),
        ("PATCH", "/v1/me"),
        ("GET", "/v1/users/7"),
        ("POST", "/v1/contacts/lookup"),
    ] {
        let (status, answer) = ask(&gateway, method, path, Some(&token)).await;
        assert_eq!((status, answer["error"]["code"].as_str()), (501, Some("unavailable")), "{method} {path}: {answer}");
    }
    assert_eq!(ask(&gateway, "GET", "/v1/me", None).await.0, 401, "a token is asked for first");
    assert_eq!(ask(&gateway, "GET", "/v1/openapi.json", None).await.1["openapi"], "3.1.0");
}
