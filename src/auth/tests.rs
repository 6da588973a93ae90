//! What is asked of an authorization server, and what is made of its answers.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::grant::{Grant, Problem};
use super::http::Http;
use super::kept::Kept;
use super::store::Store;
use super::*;
use crate::config::{Account, Auth, Config, OAuth, TokenStore};
use crate::model::Secret;

/// A status and a body.
type Reply = (u16, String);

/// Gives these answers in turn, and keeps what was asked.
struct Canned {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Canned {
    fn new(replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let url = format!("http://{}/token", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        std::thread::spawn(move || {
            for (status, body) in replies {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = String::new();
                loop {
                    let mut part = [0; 4096];
                    let read = stream.read(&mut part).unwrap();
                    request += std::str::from_utf8(&part[..read]).unwrap();
                    let Some((head, body)) = request.split_once("\r\n\r\n") else { continue };
                    let length = head
                        .to_ascii_lowercase()
                        .split_once("content-length: ")
                        .map(|(_, rest)| rest.lines().next().unwrap().parse::<usize>().unwrap());
                    if body.len() >= length.unwrap_or(0) {
                        log.lock().unwrap().push(body.to_owned());
                        break;
                    }
                }
                let head =
                    format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                stream.write_all((head + &body).as_bytes()).unwrap();
            }
        });
        Self { url, asked }
    }

    fn oauth(&self) -> OAuth {
        OAuth {
            client_id: Some("id".to_owned()),
            username: None,
            scope: "a b".to_owned(),
            authorize_url: Some(self.url.clone()),
            token_url: self.url.clone(),
            device_url: Some(self.url.clone()),
            token_store: TokenStore::File,
        }
    }

    fn grant(&self) -> Grant {
        Grant::new("id", &self.oauth(), Http::new(None).unwrap()).unwrap()
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

fn error(code: &str) -> Reply {
    (400, format!(r#"{{"error":"{code}"}}"#))
}

fn tokens(n: u32, lifetime: u32) -> Reply {
    let body = format!(
        r#"{{"token_type":"Bearer","expires_in":{lifetime},"access_token":"access-{n}","refresh_token":"refresh-{n}"}}"#
    );
    (200, body)
}

/// F32, RFC 8628 §3.5.
#[tokio::test]
async fn a_device_asks_as_often_as_it_may() {
    type Row<'a> = (&'a [&'a str], Result<(), Problem>, &'a [u64]);
    let rows: [Row<'_>; 8] = [
        (&[], Ok(()), &[5]),
        (&["authorization_pending", "authorization_pending"], Ok(()), &[5, 5, 5]),
        (&["slow_down", "authorization_pending", "slow_down"], Ok(()), &[5, 10, 10, 15]),
        (&["busy", "authorization_pending"], Ok(()), &[5, 10, 10]),
        (&["expired_token"], Err(Problem::TooLate), &[5]),
        (&["authorization_pending", "access_denied"], Err(Problem::Declined("access_denied".to_owned())), &[5, 5]),
        (&["authorization_declined"], Err(Problem::Declined("authorization_declined".to_owned())), &[5]),
        (&["invalid_client"], Err(Problem::Refused("invalid_client".to_owned())), &[5]),
    ];
    for (errors, result, pauses) in rows {
        let device = r#"{"device_code":"secret","user_code":"AB\u001b12","verification_uri":"https://x.example","expires_in":900}"#;
        let mut replies = vec![(200, device.to_owned())];
        replies.extend(errors.iter().map(|code| if *code == "busy" { (503, String::new()) } else { error(code) }));
        replies.push(tokens(1, 60));
        let server = Canned::new(replies);
        let grant = server.grant();
        let device = grant.device().await.unwrap().unwrap();
        assert_eq!((device.code().as_str(), device.lifetime()), ("AB 12", Duration::from_secs(900)));
        let slept = RefCell::new(Vec::new());
        let sleep = |pause: Duration| {
            slept.borrow_mut().push(pause.as_secs());
            std::future::ready(())
        };
        let polled = grant.poll(&device, sleep).await;
        assert_eq!(polled.map(|tokens| assert_eq!(tokens.access.expose(), "access-1")), result, "{errors:?}");
        assert_eq!(*slept.borrow(), pauses, "{errors:?}");
    }
}

#[test]
fn a_renewal_asks_for_the_same_again() {
    let server = Canned::new(vec![tokens(1, 60)]);
    let tokens = server.grant().refresh(&Secret::new("old".to_owned())).unwrap();
    assert_eq!((tokens.access.expose(), tokens.lifetime), ("access-1", Duration::from_secs(60)));
    assert_eq!(tokens.refresh.unwrap().expose(), "refresh-1");
    let asked = server.asked.lock().unwrap().remove(0);
    let mut params: Vec<&str> = asked.split('&').collect();
    params.sort_unstable();
    assert_eq!(params, ["client_id=id", "grant_type=refresh_token", "refresh_token=old", "scope=a+b"]);
}

#[test]
fn a_server_that_is_away_is_waited_for() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let server = Canned { url: format!("http://{}", listener.local_addr().unwrap()), asked: Arc::default() };
    drop(listener);
    let problem = server.grant().refresh(&Secret::new("hunter2".to_owned())).unwrap_err();
    assert!(matches!(&problem, Problem::Later(why, None) if why.contains("refused")), "{problem:?}");
}

/// An account that is signed in.
struct Signed {
    _dir: tempfile::TempDir,
    server: Canned,
    source: TokenSource,
    store: Store,
    obstacle: std::path::PathBuf,
}

fn account(dir: &tempfile::TempDir) -> Account {
    let text = format!(
        "[account.a]\nprovider = \"outlook\"\nemail = \"a@outlook.com\"\nmaildir = \"{0}/m\"\noauth.client_id = \"id\"\n\
         [daemon]\nstate_dir = \"{0}/state\"\nsocket = \"{0}/s\"\n",
        dir.path().display()
    );
    let path = dir.path().join("config.toml");
    std::fs::write(&path, text).unwrap();
    Config::load(Some(&path)).unwrap().account("a").unwrap().clone()
}

fn signed_in(replies: Vec<Reply>) -> Signed {
    let dir = tempfile::tempdir().unwrap();
    let server = Canned::new(replies);
    let account = account(&dir);
    assert!(matches!(&account.auth, Auth::OAuth2(oauth) if oauth.username.is_none()));
    let store = Store::new(TokenStore::File, "a", dir.path());
    let kept = Kept { token_url: server.url.clone(), ..kept::sample("refresh-0") };
    store.save(&kept, &store.file()).unwrap();
    let source = TokenSource::new(&account, &server.oauth(), dir.path()).unwrap();
    let obstacle = dir.path().join("a.token-new");
    Signed { _dir: dir, server, source, store, obstacle }
}

impl Signed {
    fn kept(&self) -> String {
        self.store.load().unwrap().unwrap().0.refresh_token.expose().to_owned()
    }
}

#[tokio::test]
async fn one_token_is_got_for_all_who_want_one() {
    let signed = signed_in(vec![tokens(1, 3600), tokens(2, 3600)]);
    let source = &signed.source;
    let (a, b, c) = tokio::join!(source.token(), source.token(), source.token());
    let (a, b, c) = (a.unwrap(), b.unwrap(), c.unwrap());
    assert!(a.is(&b) && b.is(&c) && a.secret().expose() == "access-1");
    assert_eq!((a.username(), signed.server.asked()), (Some("a@outlook.com"), 1));
    assert_eq!(signed.kept(), "refresh-1");
    // Three sessions are refused with it: one new token, for all of them.
    let (x, y, z) = tokio::join!(source.instead_of(&a), source.instead_of(&b), source.instead_of(&c));
    let (x, y, z) = (x.unwrap(), y.unwrap(), z.unwrap());
    assert!(x.is(&y) && y.is(&z) && x.secret().expose() == "access-2");
    assert_eq!((signed.server.asked(), signed.kept().as_str()), (2, "refresh-2"));
    assert!(!format!("{x:?} {:?}", source).contains("access-"));
}

#[tokio::test]
async fn a_token_is_replaced_before_it_runs_out() {
    let signed = signed_in(vec![tokens(1, 0), tokens(2, 3600)]);
    let first = signed.source.token().await.unwrap();
    let second = signed.source.token().await.unwrap();
    assert!(!first.is(&second) && second.is(&signed.source.token().await.unwrap()));
    assert_eq!(signed.server.asked(), 2);
}

#[tokio::test]
async fn after_a_failure_there_is_a_pause() {
    let signed = signed_in(vec![(503, String::new()), tokens(1, 3600)]);
    for _ in 0..3 {
        let error = signed.source.token().await.unwrap_err();
        assert!(matches!(&error, TokenError::Later { why, .. } if why.contains("503")), "{error}");
    }
    assert_eq!((signed.server.asked(), signed.kept().as_str()), (1, "refresh-0"));
}

#[tokio::test]
async fn what_cannot_be_saved_is_kept_in_memory_and_saved_later() {
    let signed = signed_in(vec![tokens(1, 3600), tokens(2, 3600), tokens(3, 3600)]);
    std::fs::create_dir_all(signed.obstacle.join("x")).unwrap();
    let first = signed.source.token().await.unwrap();
    assert_eq!(signed.kept(), "refresh-0");
    assert!(signed.source.complaint().await.unwrap().contains("could not be kept"));
    // The newest is used, though it is not kept.
    let second = signed.source.instead_of(&first).await.unwrap();
    assert!(signed.server.asked.lock().unwrap()[1].contains("refresh_token=refresh-1"));
    assert_eq!(signed.kept(), "refresh-0");
    std::fs::remove_dir_all(&signed.obstacle).unwrap();
    assert!(second.is(&signed.source.token().await.unwrap()));
    assert_eq!((signed.kept().as_str(), signed.source.complaint().await), ("refresh-2", None));
}

#[tokio::test]
async fn a_new_sign_in_wins_over_one_that_could_not_be_saved() {
    let signed = signed_in(vec![tokens(1, 3600), tokens(2, 3600)]);
    std::fs::create_dir_all(signed.obstacle.join("x")).unwrap();
    let first = signed.source.token().await.unwrap();
    std::fs::remove_dir_all(&signed.obstacle).unwrap();
    let kept = Kept { token_url: signed.server.url.clone(), ..kept::sample("of another process") };
    signed.store.save(&kept, &signed.store.file()).unwrap();
    signed.source.instead_of(&first).await.unwrap();
    assert!(signed.server.asked.lock().unwrap()[1].contains("refresh_token=of+another+process"));
    assert_eq!((signed.kept().as_str(), signed.source.complaint().await), ("refresh-2", None));
}

#[tokio::test]
async fn a_sign_in_that_was_taken_away_is_not_brought_back() {
    let signed = signed_in(vec![tokens(1, 3600)]);
    std::fs::create_dir_all(signed.obstacle.join("x")).unwrap();
    let first = signed.source.token().await.unwrap();
    std::fs::remove_dir_all(&signed.obstacle).unwrap();
    std::fs::remove_file(signed.obstacle.with_file_name("a.token")).unwrap();
    let error = signed.source.instead_of(&first).await.unwrap_err();
    assert!(matches!(error, TokenError::NotSignedIn { .. }), "{error}");
    assert!(signed.store.load().unwrap().is_none());
}
