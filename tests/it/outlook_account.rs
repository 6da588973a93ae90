//! Whole accounts on the simulated Outlook.com: signed in with a token, mirrored both ways, on each profile; and through
//! faults that a seed chooses.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use postkeep_sim::oauth::DeviceState;
use postkeep_sim::{Faults, OAuth, Profile, Server};

use crate::account::{Account, Remote};
use crate::faults_scene::{DATE, Scene, mail, mail_here};
use crate::outlook::{account, let_pass};

/// Makes an account with `provider = "outlook"` on a simulated one, signed in.
pub fn signed_in(server: &Server) -> (Account, OAuth) {
    let (account, oauth) = not_signed_in(server);
    login(&account, &oauth);
    (account, oauth)
}

/// Signs in to the account, by a code that is typed in at once.
pub fn login(account: &Account, oauth: &OAuth) {
    oauth.directory().interval = 1;
    let mut login = account.command(&["login", "a", "--device"]);
    let mut child = login.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("Ctrl-C")), "it gave no code");
    oauth.directory().decide(DeviceState::Approved);
    lines.for_each(drop);
    assert!(child.wait().unwrap().success());
}

/// Makes an account with `provider = "outlook"` on a simulated one.
pub fn not_signed_in(server: &Server) -> (Account, OAuth) {
    let oauth = OAuth::spawn(server, None).unwrap();
    let account = Account::on_sim(server);
    let (maildir, state_dir) = (account.maildir().display().to_string(), account.state_dir().display().to_string());
    let config = format!(
        "[daemon]\nstate_dir = {state_dir:?}\n\n[account.a]\nprovider = \"outlook\"\nhost = \"127.0.0.1\"\nport = {}\n\
         tls = \"none\"\nemail = \"user@example.com\"\nmaildir = {maildir:?}\nappend_retry_after = \"1s\"\n\n\
         [account.a.oauth]\nclient_id = \"client\"\nauthorize_url = {:?}\ntoken_url = {:?}\ndevice_url = {:?}\n\
         token_store = \"file\"\n",
        server.port(),
        oauth.endpoint("consumers", "authorize"),
        oauth.endpoint("consumers", "token"),
        oauth.endpoint("consumers", "devicecode"),
    );
    fs::write(account.config(), config).unwrap();
    (account, oauth)
}

#[test]
fn every_profile_is_mirrored_both_ways() {
    for profile in Profile::EXCHANGE {
        eprintln!("{profile:?}");
        let server = Server::spawn(profile).unwrap();
        let (account, _oauth) = signed_in(&server);
        let sync = || {
            let output = account.run(&["sync"]);
            assert_eq!(output.code, 0, "{output:?}");
        };
        for n in 1..=5 {
            server.state().append("INBOX", &mail(n), &[], DATE);
        }
        server.state().append("Notes", &mail(6), &[], DATE);
        sync();
        assert!(!account.mailbox("Notes").exists() && !account.mailbox("Outbox").exists(), "these are no mail");
        server.state().delete("Notes");
        server.state().delete("Outbox");
        account.assert_equal(Remote::Sim(&server));

        // Each side reads, flags, moves, deletes, and writes something.
        let path = |n: u32| {
            let files = account.files("INBOX");
            files.into_iter().find(|path| fs::read(path).unwrap() == mail_here(n)).unwrap()
        };
        account.set_info(&path(1), "FS");
        account.move_to(&path(2), "Archive");
        fs::remove_file(path(3)).unwrap();
        account.deliver("Drafts", &mail_here(7));
        account.deliver("Projects/alpha", &mail_here(8));
        {
            let mut state = server.state();
            state.set_flags("INBOX", 4, &["\\Answered", "\\Seen"]);
            state.move_message("INBOX", 5, "Junk");
            state.append("INBOX", &mail(9), &["\\Flagged"], DATE);
        }
        sync();
        account.assert_equal(Remote::Sim(&server));
        let subjects = |mailbox: &str| server.state().messages(mailbox).len();
        assert_eq!([subjects("INBOX"), subjects("Archive"), subjects("Junk"), subjects("Deleted")], [3, 1, 1, 1]);
        let _ = server.take_commands();
        sync();
        assert!(server.take_commands().iter().all(|command| !command.changes()));
        assert_eq!(server.violations(), Vec::<String>::new());
    }
}

/// Runs an account through faults until they are over; returns what both sides have in the end.
fn through_faults(seed: u64) -> (Scene, crate::account::Mailboxes) {
    let scene = account("connections = 1");
    for n in 1..=12 {
        scene.arrives(n);
    }
    scene.assert_heals();
    scene.server.set_faults(Faults::random(seed, 60));
    for n in 13..=18 {
        scene.arrives(n);
        scene.delivered(100 + n);
        let path = scene.file("INBOX", n - 12);
        scene.account.set_info(&path, "S");
        scene.server.state().set_flags("INBOX", n - 6, &["\\Flagged"]);
        let _ = scene.sync();
        wait_no_more(&scene);
    }
    scene.server.calm();
    for _ in 0..3 {
        let _ = scene.sync();
        wait_no_more(&scene);
    }
    scene.assert_heals_within(3);
    let local = scene.account.local();
    (scene, local)
}

/// Lets all times pass that are waited for.
fn wait_no_more(scene: &Scene) {
    scene.server.state().advance(std::time::Duration::from_secs(3600));
    let_pass(&scene.account, "UPDATE service SET quiet_until = NULL, quiet_why = NULL");
    let database = rusqlite::Connection::open(scene.account.state_dir().join("a.sqlite3")).unwrap();
    database.execute("UPDATE again SET next_at = 1", []).unwrap();
}

#[test]
fn a_seed_of_faults_leads_to_the_same_end_every_time() {
    let mut any = false;
    for seed in 1..=4 {
        eprintln!("seed {seed}");
        let (first, second) = (through_faults(seed), through_faults(seed));
        any |= !first.0.server.fired().is_empty();
        // Files that were delivered here have the date of the moment.
        let sorted = |mailboxes: crate::account::Mailboxes| {
            let mut all: Vec<_> = mailboxes.into_iter().collect();
            all.iter_mut().flat_map(|(_, mails)| mails).for_each(|mail| mail.date = 0);
            all.iter_mut().for_each(|(_, mails)| mails.sort());
            all
        };
        assert_eq!(sorted(first.1), sorted(second.1), "seed {seed}");
    }
    assert!(any, "no fault happened");
}
