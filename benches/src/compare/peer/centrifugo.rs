//! Centrifugo 6 with its memory engine: JSON over its WebSocket endpoint, a token for each user, a channel of its own for each.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

use super::process::{self, Server, listens};
use super::{Durability, Peer, Turn};
use crate::compare::dialect::Dialect;
use crate::compare::dialect::centrifugo::{self, NAMESPACE};

pub(crate) struct Centrifugo {
    pub(crate) binary: PathBuf,
}

/// Tokens are good for longer than any run.
const TOKEN_S: u64 = 24 * 3600;

/// Everything that is not said has its default: the memory engine, no history, pings each 25 s.
fn config(turn: &Turn<'_>, secret: &str) -> Value {
    json!({
        "http_server": { "address": turn.address.ip().to_string(), "port": turn.address.port() },
        "log": { "level": "warn" },
        "usage_stats": { "disabled": true },
        "client": {
            "token": { "hmac_secret_key": secret },
            "subscribe_to_user_personal_channel": { "enabled": true, "personal_channel_namespace": NAMESPACE },
        },
        "channel": { "namespaces": [{ "name": NAMESPACE, "allow_publish_for_client": true }] },
    })
}

/// A token for each client, signed with HMAC-SHA256 as ours are.
fn tokens(clients: usize, secret: &str) -> anyhow::Result<Vec<String>> {
    let key = EncodingKey::from_secret(secret.as_bytes());
    let ends = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() + TOKEN_S;
    let token = |client| jsonwebtoken::encode(&Header::default(), &json!({ "sub": centrifugo::user(client), "exp": ends }), &key);
    Ok((0..clients).map(token).collect::<Result<_, _>>()?)
}

impl Peer for Centrifugo {
    fn name(&self) -> String {
        "Centrifugo".into()
    }

    fn durability(&self) -> Durability {
        Durability::Memory
    }

    fn remarks(&self) -> &'static str {
        "at most once; a token and a channel a user, no history; a publish is answered; server pings answered"
    }

    fn start(&self, turn: &Turn<'_>) -> anyhow::Result<(Server, Arc<dyn Dialect>)> {
        let (file, secret) = (turn.dir.join("centrifugo.json"), format!("{:032x}", rand::random::<u128>()));
        std::fs::write(&file, config(turn, &secret).to_string())?;
        let mut command = process::command(&self.binary, "CENTRIFUGO_");
        command.arg("--config").arg(file);
        let server = Server::start(&command, turn.dir)?;
        server.wait(|| listens(turn.address))?;
        Ok((server, Arc::new(centrifugo::Centrifugo { tokens: tokens(turn.clients, &secret)? })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_client_has_a_token_of_its_own() {
        let tokens = tokens(3, "secret").unwrap();
        assert_eq!(tokens.len(), 3);
        assert!(tokens[0] != tokens[1] && tokens[1] != tokens[2]);
        assert!(tokens.iter().all(|token| token.split('.').count() == 3));
    }
}
