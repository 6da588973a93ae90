//! What Outlook.com does to mailboxes. The numbers are those of the failure modes that the simulation knows.

use std::time::Duration;

use postkeep_sim::{Language, Options, Profile};

use crate::faults_scene::mail_here;
use crate::outlook::{account, server, session, synced};

#[test]
fn f14_a_renumbered_mailbox_keeps_its_files() {
    let scene = account("");
    for n in 1..=30 {
        scene.arrives_in("Archive", n);
    }
    scene.assert_heals();
    let hour = Duration::from_secs(3600);
    scene.server.state().renew("Archive", 12, hour);
    let _ = scene.server.take_commands();
    scene.sync_says(1, &["renumbered", "18 messages"]);
    scene.sync_says(1, &[]);
    assert_eq!(scene.account.files("Archive").len(), 30);
    scene.assert_graves(0);
    let transfers = |c: &postkeep_sim::Command| c.fits("UID FETCH BODY.PEEK[]") || c.name == "APPEND";
    assert!(!scene.server.take_commands().iter().any(transfers));
    scene.server.state().advance(hour);
    scene.assert_heals();
    assert!(!scene.server.take_commands().iter().any(transfers));

    // What does not come back is sent again.
    scene.server.state().renew("Archive", 29, 1000 * hour);
    scene.sync_says(1, &["renumbered", "1 messages"]);
    crate::outlook::let_pass(&scene.account, "UPDATE link SET since = 1 WHERE state = 2");
    scene.assert_heals_within(2);
}

#[test]
fn f22_f26_no_command_is_too_long_or_sent_ahead() {
    let scene = account("");
    for n in 1..=900 {
        scene.arrives(n);
    }
    // Numbers with holes make long sets.
    for uid in (1..=900).step_by(2) {
        scene.server.state().expunge("INBOX", uid);
        scene.unwanted(uid);
    }
    scene.assert_heals();
    for n in (2..=900).step_by(4) {
        let path = scene.file("INBOX", n);
        scene.account.set_info(&path, "F");
    }
    // Refused are lines above 4096 bytes and commands that are sent ahead; ten such, and the connection ends.
    scene.assert_heals();
}

#[test]
fn f23_names_with_quotes_and_tabs() {
    let scene = synced(1);
    for (n, name) in ["say \"hi\"", "tab\there", "back\\slash"].into_iter().enumerate() {
        scene.arrives_in_new(name, 10 + u32::try_from(n).unwrap());
    }
    scene.assert_heals();
    let path = scene.account.deliver("new \"quoted\"", &mail_here(20));
    scene.account.set_info(&path, "S");
    scene.sync_says(0, &[]);
    assert!(scene.server.state().mailboxes.contains_key("new \"quoted\""));
    scene.assert_decent();
}

#[tokio::test]
async fn f24_imap4rev2_is_not_turned_on() {
    let server = server(Profile::Exo2026Rev2);
    let mut session = session(&server).await;
    for _ in 0..2 {
        assert!(session.list().await.unwrap().mailboxes.len() > 5);
    }
    assert!(!session.capabilities().has("IMAP4rev2") && !session.capabilities().has("ENABLE"));
    let names: Vec<String> = server.commands().into_iter().map(|c| c.name).collect();
    assert!(!names.iter().any(|name| name == "ENABLE" || name == "LSUB"), "{names:?}");
    assert_eq!(server.violations(), Vec::<String>::new());
}

#[test]
fn f30_names_that_differ_by_case_only_are_one_mailbox() {
    let scene = synced(1);
    scene.arrives_in_new("Work", 2);
    scene.assert_heals();
    scene.account.deliver("work", &mail_here(3));
    let _ = scene.server.take_commands();
    scene.sync_says(1, &["maildir work is not mirrored", "mailbox Work"]);
    scene.assert_told_nothing();
    assert_eq!(scene.account.files("work").len(), 1);
    std::fs::remove_dir_all(scene.account.mailbox("work")).unwrap();
    scene.assert_heals();

    // A name that the service keeps for itself.
    scene.account.deliver("Files", &mail_here(4));
    scene.sync_says(1, &["Folder name is reserved"]);
    assert_eq!(scene.account.files("Files").len(), 1);
}

#[tokio::test]
async fn special_mailboxes_are_known_in_any_language() {
    use postkeep::imap::Role;
    let server = server(Options::from(Profile::Exo2026).language(Language::French));
    for mailbox in server.state().mailboxes.values_mut() {
        mailbox.special_use = None;
    }
    let lists = session(&server).await.list().await.unwrap();
    for role in [Role::Trash, Role::Sent, Role::Drafts, Role::Junk, Role::Archive] {
        let found: Vec<_> =
            lists.mailboxes.iter().filter(|m| m.role == Some(role)).map(|m| m.name.to_string()).collect();
        // Its archive has an English name.
        assert_eq!(found.len(), 1, "{role:?}: {found:?}");
    }
}
