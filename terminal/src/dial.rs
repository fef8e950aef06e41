//! One attempt to be connected: an access token that is good for a while, then a socket.
//!
//! A refresh token is used once, and the server ends a session whose token comes twice. So two things outlive an attempt, however it ends: the
//! key of a refresh, which is in the session and on disk before it is asked; and the session it brought, whatever becomes of the socket.

use crate::account;
use crate::core::Loss;
use crate::error::Error;
use crate::state::{Folder, Session};
use crate::wire::Place;
use crate::wire::socket::Socket;

/// What came of an attempt.
pub(crate) struct Attempt {
    /// The session from now on.
    pub(crate) session: Session,
    pub(crate) opened: Result<Socket, Loss>,
}

/// Gets the session ready for an attempt; a new access token is wanted if `refresh`, or if the old one is about to expire. Whether it is.
///
/// The key of the refresh is kept on disk: if this process dies with the answer on its way, the next run asks for the same answer.
pub(crate) fn prepare(folder: &Folder, session: &mut Session, refresh: bool) -> Result<bool, Error> {
    let wanted = refresh || account::is_stale(session);
    if wanted && account::give_key(session) {
        folder.keep_session(session)?;
    }
    Ok(wanted)
}

/// Refreshes the session, if that is wanted, and connects.
pub(crate) async fn attempt(place: &Place, folder: &Folder, mut session: Session, refresh: bool) -> Attempt {
    if refresh {
        match account::refreshed(place, &session).await {
            Ok(next) => session = next,
            Err(loss) => return Attempt { session, opened: Err(loss) },
        }
        if let Err(why) = folder.keep_session(&session) {
            return Attempt { session, opened: Err(why.into()) };
        }
    }
    let opened = Socket::open(place, &session.access_token).await;
    Attempt { session, opened }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use serde_json::{Value, json};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::JoinHandle;

    use super::*;

    /// What a request is answered with: a status and a body, or the end of the connection.
    type Answer = Option<(u16, String)>;

    fn good(number: u32) -> Answer {
        let data = json!({"user": "42", "device": "terminal-1", "access_token": format!("a{number}"), "expires_at": "2999-01-01T00:00:00Z",
            "refresh_token": format!("r{number}")});
        Some((200, json!({"success": true, "data": data}).to_string()))
    }

    fn bad(status: u16, code: &str) -> Answer {
        Some((status, json!({"success": false, "error": {"code": code, "message": code}}).to_string()))
    }

    fn page(status: u16) -> Answer {
        Some((status, "<html>a proxy says so</html>".into()))
    }

    /// Reads one request: its path, its key, its body.
    async fn request(stream: &mut TcpStream) -> (String, Option<String>, Value) {
        let mut read = Vec::new();
        let mut part = [0; 4096];
        loop {
            let text = String::from_utf8_lossy(&read).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let header = |name: &str| {
                    let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(name))?;
                    Some(line.split_once(':')?.1.trim().to_owned())
                };
                let length: usize = header("content-length:").map_or(0, |length| length.parse().unwrap());
                if body.len() >= length {
                    let path = head.split(' ').nth(1).unwrap().to_owned();
                    return (path, header("idempotency-key:"), serde_json::from_str(body).unwrap_or_default());
                }
            }
            let count = stream.read(&mut part).await.unwrap();
            assert!(count > 0, "a request was cut off: {text}");
            read.extend_from_slice(&part[..count]);
        }
    }

    /// A server that gives these answers, each to one request, and then says what was asked.
    async fn server(answers: Vec<Answer>) -> (Place, JoinHandle<Vec<(String, Option<String>, Value)>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = Place::new(&format!("http://{}", listener.local_addr().unwrap()), None).unwrap();
        let serving = tokio::spawn(async move {
            let (mut answers, mut asked) = (VecDeque::from(answers), Vec::new());
            while let Some(answer) = answers.pop_front() {
                let (mut stream, _) = listener.accept().await.unwrap();
                asked.push(request(&mut stream).await);
                if let Some((status, body)) = answer {
                    let head = format!("HTTP/1.1 {status} So\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
                }
            }
            asked
        });
        (place, serving)
    }

    fn session() -> Session {
        Session {
            user: "42".parse().unwrap(),
            device: "terminal-1".into(),
            access_token: "a0".into(),
            expires_at: "2999-01-01T00:00:00Z".into(),
            refresh_token: "r0".into(),
            refresh_key: None,
        }
    }

    /// As `run` does it: what an attempt says is the session from then on.
    async fn try_once(place: &Place, folder: &Folder, session: &mut Session, refresh: bool) -> Loss {
        let refresh = prepare(folder, session, refresh).unwrap();
        let attempt = attempt(place, folder, session.clone(), refresh).await;
        *session = attempt.session;
        attempt.opened.err().expect("this server opens nothing")
    }

    fn folder() -> (tempfile::TempDir, Folder) {
        let base = tempfile::tempdir().unwrap();
        let folder = Folder::open(Some(base.path()), "127.0.0.1", "+4915112345678").unwrap();
        (base, folder)
    }

    #[tokio::test]
    async fn a_session_that_was_renewed_stays_though_the_socket_does_not_open() {
        let ((_base, folder), mut session) = (folder(), session());
        let (place, serving) = server(vec![good(1), page(503), page(503), good(2), page(503)]).await;
        let lost = try_once(&place, &folder, &mut session, true).await;
        assert_eq!(lost, Loss::Http { status: 503, retry_after_ms: 0 });
        assert_eq!((session.refresh_token.as_str(), session.refresh_key.as_ref()), ("r1", None));
        assert_eq!(folder.session().as_ref(), Some(&session));
        try_once(&place, &folder, &mut session, false).await;
        try_once(&place, &folder, &mut session, true).await;
        assert_eq!(folder.session().unwrap().refresh_token, "r2");
        let asked = serving.await.unwrap();
        let refreshes: Vec<_> = asked.iter().filter(|(path, ..)| path == "/v1/sessions/refresh").collect();
        assert_eq!(
            refreshes.iter().map(|(.., body)| &body["refresh_token"]).collect::<Vec<_>>(),
            ["r0", "r1"],
            "none comes twice"
        );
        assert_ne!(refreshes[0].1, refreshes[1].1, "each has its own key");
    }

    #[tokio::test]
    async fn a_refresh_whose_answer_is_lost_is_asked_again_under_the_same_key() {
        let ((_base, folder), mut session) = (folder(), session());
        // each attempt asks twice
        let (place, serving) = server(vec![None, None, bad(503, "unavailable"), good(1), page(503)]).await;
        assert!(matches!(try_once(&place, &folder, &mut session, true).await, Loss::Broken(_)));
        let key = session.refresh_key.clone().expect("the live session has it");
        assert_eq!(folder.session().unwrap().refresh_key.as_ref(), Some(&key), "and the disk");
        try_once(&place, &folder, &mut session, true).await;
        try_once(&place, &folder, &mut session, true).await;
        assert_eq!(session.refresh_token, "r1");
        let asked = serving.await.unwrap();
        assert!(
            asked[..4].iter().all(|(_, said, body)| said.as_ref() == Some(&key) && body["refresh_token"] == "r0"),
            "{asked:?}"
        );
    }

    #[tokio::test]
    async fn only_the_servers_own_word_ends_a_session() {
        let ((_base, folder), mut session) = (folder(), session());
        let (place, _serving) = server(vec![page(401), page(400), bad(401, "proxy_login"), bad(401, "unauthenticated")]).await;
        for _ in 0..3 {
            assert!(matches!(try_once(&place, &folder, &mut session, true).await, Loss::Http { .. }), "somebody in between");
        }
        assert_eq!(try_once(&place, &folder, &mut session, true).await, Loss::SignedOut);
    }
}
