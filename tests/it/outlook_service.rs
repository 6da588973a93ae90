//! How the service as a whole can fail: what it says then, how it is left alone, and that nothing is lost by it. The
//! numbers are those of the failure modes that the simulated Outlook.com knows.

use std::time::Duration;

use postkeep::imap::{Error, Quirks, Session};
use postkeep_sim::{Fault, NotConnected, Options, Profile, When};

use crate::outlook::{account, connect, let_quiet_pass, server, session, synced, token};

#[test]
fn f02_a_sign_in_that_leads_to_no_mailbox_is_tried_less_and_less() {
    let scene = synced(3);
    let before = scene.snapshot();
    scene.server.state().quirks.not_connected = NotConnected::Everybody;
    let _ = scene.server.take_commands();
    scene.sync_says(5, &["accepted the sign-in, but does not open the mailbox", "not connected"]);
    // Closed at the first command that says so, not at the second, which would get a BYE.
    let names: Vec<String> = scene.server.take_commands().into_iter().map(|c| c.name).collect();
    assert_eq!(names, ["CAPABILITY", "AUTHENTICATE", "CAPABILITY", "ID"]);
    scene.sync_says(5, &["is left alone until", "does not open the mailbox"]);
    assert_eq!(scene.server.take_commands().len(), 0, "the server was not left alone");
    let status = scene.account.run(&["status"]);
    assert!(status.stdout.contains("has not opened the mailbox since"), "{status:?}");
    assert!(scene.snapshot() == before);

    // It is not the password, until it lasts; and then there are other causes.
    let_quiet_pass(&scene.account);
    let lasting = "UPDATE service SET not_connected_since = not_connected_since - 4000";
    crate::outlook::let_pass(&scene.account, lasting);
    scene.sync_says(5, &["IMAP is switched off for the mailbox", "alias"]);
    let_quiet_pass(&scene.account);
    scene.server.state().quirks.not_connected = NotConnected::Nobody;
    scene.assert_heals();
    let status = scene.account.run(&["status"]);
    assert!(!status.stdout.contains("has not opened"), "{status:?}");
}

#[tokio::test]
async fn f03_what_fails_over_ipv6_only_goes_over_ipv4() {
    let server = server(Options::from(Profile::Exo2026).ipv6());
    assert!(server.ipv6(), "this test needs ::1, as a machine has that has IPv6 at all; in a container, switch it on");
    server.state().quirks.not_connected = NotConnected::OverIpv6;
    let mut connect = connect(&server);
    (connect.host, connect.other_hosts) = ("::1".into(), vec!["127.0.0.1".into()]);
    let session = Session::open(&connect, &token()).await.unwrap();
    assert!(connect.route.is_ipv4_only());
    session.logout().await.unwrap();
    // From then on at once.
    let _ = server.take_commands();
    Session::open(&connect, &token()).await.unwrap().logout().await.unwrap();
    let sign_ins = server.commands().iter().filter(|c| c.name == "AUTHENTICATE").count();
    assert_eq!(sign_ins, 1);
    // Where IPv4 does not help either, it is not taken for the better way.
    server.state().quirks.not_connected = NotConnected::Everybody;
    let connect = postkeep::imap::Connect { route: postkeep::imap::Route::default(), ..connect };
    assert!(matches!(Session::open(&connect, &token()).await, Err(Error::NotConnected { .. })));
    assert!(!connect.route.is_ipv4_only());
}

#[test]
fn f04_a_mailbox_that_is_being_moved_lets_in() {
    let scene = synced(1);
    scene.server.inject("AUTHENTICATE", When::Nth(1), Fault::wrong_server());
    scene.arrives(2);
    scene.assert_heals();
    scene.assert_fired("AUTHENTICATE edit");
}

#[test]
fn f06_a_throttled_account_is_silent_for_as_long_as_it_was_told() {
    for (pattern, bad) in [
        ("SELECT", false),
        ("UID FETCH BODY.PEEK[]", true),
        ("UID FETCH BODY.PEEK[]", false),
        ("APPEND", true),
        ("APPEND", false),
        ("UID STORE", true),
        ("STATUS", true),
        ("LIST", false),
    ] {
        eprintln!("{pattern}, BAD: {bad}");
        // What other connections were just sending cannot be taken back, so there is one.
        let scene = account("connections = 1");
        scene.arrives(1);
        scene.arrives(2);
        scene.assert_heals();
        scene.arrives(3);
        scene.delivered(4);
        let path = scene.file("INBOX", 1);
        scene.account.set_info(&path, "F");
        let time = Duration::from_millis(299_961);
        scene.server.inject(pattern, When::Nth(1), Fault::Throttle { time, bad });
        scene.sync_says(5, &["asks to be left alone for 5 minutes", "throttled"]);
        scene.assert_fired(&format!("{} throttle", pattern.split(" BODY").next().unwrap()));
        let told = scene.server.take_commands().len();
        scene.sync_says(5, &["is left alone until", "throttled"]);
        assert_eq!(scene.server.take_commands().len(), 0, "the server was not left alone, after {told} commands");
        let status = scene.account.run(&["status"]);
        assert!(status.stdout.contains("the server is left alone until"), "{status:?}");
        assert_eq!(scene.server.impatient().len(), 0);
        scene.server.state().advance(time);
        let_quiet_pass(&scene.account);
        scene.assert_heals_within(2);
    }
}

#[test]
fn f07_an_unavailable_server_is_no_server_without_mailboxes() {
    for (pattern, fault) in [
        ("LIST", Fault::Answer("NO Server Unavailable. 15".to_owned())),
        ("LIST", Fault::Answer("BAD Server Unavailable. 15".to_owned())),
        ("LIST", Fault::Script("Server Unavailable. 15\r\n* BYE Connection closed.\r\n".to_owned())),
        ("STATUS", Fault::Answer("NO Server Unavailable. 15".to_owned())),
        ("SELECT", Fault::Script("Server Unavailable. 15\r\n".to_owned())),
        ("UID FETCH", Fault::Answer("NO Server Unavailable. 15".to_owned())),
    ] {
        let scene = synced(3);
        let (before, name) = (scene.snapshot(), fault.name());
        eprintln!("{pattern} {name}");
        scene.server.inject(pattern, When::Every, fault);
        let _ = scene.server.take_commands();
        scene.sync_says(5, &["Server Unavailable. 15"]);
        scene.assert_fired(&format!("{pattern} {name}"));
        scene.assert_told_nothing();
        assert!(scene.snapshot() == before);
        scene.server.calm();
        scene.assert_heals();
    }
}

#[test]
fn a_session_that_lost_its_way_is_left_for_another() {
    let scene = synced(1);
    for (n, text) in ["BAD Command Error. 10", "BAD Command received in Invalid state."].into_iter().enumerate() {
        scene.arrives(10 + u32::try_from(n).unwrap());
        scene.server.inject("SELECT", When::Nth(1), Fault::Answer(text.to_owned()));
        scene.assert_heals();
        scene.assert_fired("SELECT answer");
    }
}

#[tokio::test]
async fn exchange_is_recognised_by_itself() {
    for profile in Profile::EXCHANGE {
        let server = server(profile);
        assert_eq!(*session(&server).await.quirks(), Quirks::outlook(), "{profile:?}");
    }
}

#[test]
fn f25_more_connections_than_are_let_in_are_made_do_without() {
    let scene = account("connections = 4");
    for n in 1..=5 {
        scene.arrives_in_new(&format!("m{n}"), n);
    }
    scene.server.state().quirks.max_connections = Some(1);
    scene.sync_says(0, &["made do with fewer connections"]);
    scene.assert_quirk("max_connections");
    scene.assert_heals();
}
