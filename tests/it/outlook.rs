//! What the tests on a simulated Outlook.com share: an account on it, and the moments that its own clock or ours must
//! reach.

use std::time::Duration;

use postkeep::imap::{Connect, Credentials, Quirks, Route, Session, Tls};
use postkeep::model::Secret;
use postkeep_sim::{Options, Profile, Server};

use crate::account::Account;
use crate::faults_scene::Scene;

/// The profile that a password leads into; those that take tokens only are for single sessions, and for the tests of the
/// sign-in.
pub const PROFILE: Profile = Profile::ExoClassic;

/// Makes an account with the mails 1 to `count` in INBOX, mirrored.
pub fn synced(count: u32) -> Scene {
    let scene = account("");
    for n in 1..=count {
        scene.arrives(n);
    }
    scene.assert_heals();
    scene
}

/// Makes an account that was never synced; `extra` are more lines of its configuration.
pub fn account(extra: &str) -> Scene {
    Scene::with(PROFILE, &format!("append_retry_after = \"1s\"\n{extra}"))
}

/// Changes the database of an account, as time would.
pub fn let_pass(account: &Account, sql: &str) {
    let database = rusqlite::Connection::open(account.state_dir().join("a.sqlite3")).unwrap();
    assert_ne!(database.execute(sql, []).unwrap(), 0, "{sql} changed nothing");
}

/// Lets the time pass for which the server is to be left alone.
pub fn let_quiet_pass(account: &Account) {
    let_pass(account, "UPDATE service SET quiet_until = 1 WHERE quiet_until IS NOT NULL");
}

/// Lets the time pass after which what is withheld is asked for again.
pub fn let_withheld_pass(account: &Account) {
    let_pass(account, "UPDATE again SET next_at = 1");
}

/// Starts a server that accepts the token `t0`.
pub fn server(options: impl Into<Options>) -> Server {
    let server = Server::spawn(options).unwrap();
    server.state().tokens.insert("t0".to_owned());
    server
}

/// Returns the way to a server.
pub fn connect(server: &Server) -> Connect {
    Connect {
        host: "127.0.0.1".into(),
        other_hosts: vec![],
        port: server.port(),
        tls: Tls::None,
        spool_dir: std::env::temp_dir(),
        max_literal: 1 << 20,
        timeout: Duration::from_secs(60),
        connect_timeout: Duration::from_secs(30),
        quirks: Quirks::default(),
        route: Route::default(),
    }
}

/// Returns what signs in.
pub fn token() -> Credentials {
    Credentials::Token { username: "user@example.com".into(), token: Secret::new("t0".into()) }
}

/// Returns a session that was opened with a token.
pub async fn session(server: &Server) -> Session {
    Session::open(&connect(server), &token()).await.unwrap()
}
