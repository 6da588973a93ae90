//! What Outlook.com does to single messages. The numbers are those of the failure modes that the simulation knows.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use postkeep_sim::{At, Fault, Sizes, Unkept, When};
use sha2::{Digest as _, Sha256};

use crate::faults_scene::{DATE, Scene, mail, mail_here};
use crate::outlook::{account, let_withheld_pass, synced};
use crate::reader::Reader;

#[test]
fn f08_what_is_listed_and_not_given_is_asked_for_again() {
    // Once: within the pass. For longer: later and later, and nothing is deleted meanwhile.
    let scene = synced(3);
    let uid = scene.arrives(4);
    scene.server.inject("UID FETCH BODY.PEEK[]", When::Nth(1), Fault::Omit(vec![uid]));
    scene.assert_heals();
    scene.assert_fired("UID FETCH omit");

    let uid = scene.arrives(5);
    scene.arrives(6);
    scene.server.inject("UID FETCH BODY.PEEK[]", When::Every, Fault::Omit(vec![uid]));
    scene.sync_says(1, &["does not give 1 messages"]);
    scene.assert_here([1, 2, 3, 4, 6]);
    let status = scene.account.run(&["status"]);
    assert!(status.stdout.contains("1 not given yet") && status.stdout.contains(&format!("uid {uid}: asked for once")));
    // Whoever asks for a pass asks for it, once: in vain, …
    let _ = scene.server.take_commands();
    scene.sync_says(1, &["does not give 1 messages"]);
    let asked = scene.server.take_commands().iter().filter(|c| c.fits("UID FETCH BODY.PEEK[]")).count();
    assert_eq!(asked, 1);
    let status = scene.account.run(&["status"]);
    assert!(status.stdout.contains("asked for 2 times"), "{status:?}");
    // … and then not.
    scene.server.calm();
    let_withheld_pass(&scene.account);
    scene.assert_heals();
}

#[test]
fn f08_what_a_listing_leaves_out_is_not_deleted() {
    let scene = synced(6);
    scene.server.inject("UID FETCH FLAGS", When::Every, Fault::Omit(vec![2, 4]));
    scene.sync();
    scene.assert_fired("UID FETCH omit");
    scene.assert_here(1..=6);
    scene.assert_graves(0);
    scene.server.calm();
    scene.assert_heals();
}

#[test]
fn f09_a_text_in_the_place_of_a_message_is_not_the_message() {
    let faults = |uid: u32| {
        [
            Fault::Placeholder { uids: vec![uid], peek: true },
            Fault::Placeholder { uids: vec![uid], peek: false },
            Fault::BodyNil,
            Fault::BodyEmpty,
        ]
    };
    for n in 0..4 {
        let scene = synced(2);
        let uid = scene.arrives(3);
        let fault = faults(uid)[n].clone();
        let name = format!("UID FETCH {}", fault.name());
        eprintln!("{name}");
        scene.server.inject("UID FETCH BODY.PEEK[]", When::Every, fault);
        scene.sync_says(1, &["does not give 1 messages"]);
        scene.assert_fired(&name);
        scene.assert_whole();
        scene.assert_told_nothing();
        assert_eq!(scene.account.files("INBOX").len(), 2);
        scene.server.calm();
        let_withheld_pass(&scene.account);
        scene.assert_heals();
    }
}

#[test]
fn f10_a_message_that_is_refused_does_not_keep_the_others_away() {
    for answer in
        ["NO The requested message could not be converted to an RFC-822 compatible format.", "BAD Command Error. 10"]
    {
        let scene = synced(1);
        scene.all_but_one_are_given(answer);
        scene.server.calm();
        let_withheld_pass(&scene.account);
        scene.assert_heals();
    }
}

#[test]
fn f11_sizes_are_not_believed() {
    for sizes in [Sizes::Tripled, Sizes::Third, Sizes::Zero, Sizes::Estimated] {
        let scene = account("");
        scene.server.state().quirks.sizes = sizes;
        for n in 1..=3 {
            scene.arrives(n);
        }
        scene.assert_heals();
        // Matched by content, though no size is right: nothing is transferred again.
        std::fs::remove_file(scene.account.state_dir().join("a.sqlite3")).unwrap();
        let _ = scene.server.take_commands();
        scene.sync();
        assert!(!scene.server.take_commands().iter().any(|c| c.fits("UID FETCH BODY.PEEK[]") || c.name == "APPEND"));
        scene.assert_heals();
        scene.assert_quirk("sizes");
    }
}

#[test]
fn f12_a_message_that_is_given_otherwise_the_next_time_stays_as_it_is() {
    let scene = synced(2);
    scene.server.state().quirks.message_flag_header = true;
    scene.server.state().set_flags("INBOX", 1, &["\\Flagged"]);
    let path = scene.file("INBOX", 1);
    let _ = scene.server.take_commands();
    scene.sync_says(0, &[]);
    assert!(!scene.server.take_commands().iter().any(|c| c.fits("UID FETCH BODY.PEEK[]")));
    assert!(!path.exists(), "it has a flag now, and so another name");
    // Another client sees it changed.
    let seen = Reader::login(scene.server.port(), "user", "secret").unwrap().mails("INBOX").remove(0).1;
    assert!(seen.bytes.starts_with(b"X-Message-Flag: "), "{seen:?}");
    scene.assert_quirk("message_flag_header");
    scene.assert_here([1, 2]);
    scene.assert_quiet();
}

/// The first message of INBOX gets or loses `\Flagged`, and so its mark, and then something `happens` for which it has a
/// new number: it is the same message. Where the base is `lost`, nobody knows which side changed the flag, and it stays.
fn assert_known_again(lost: bool, happens: impl Fn(&Scene)) {
    let of_mailboxes = |scene: &Scene| [scene.account.files("INBOX"), scene.account.files("Archive")].concat();
    let contents = |paths: &[PathBuf]| -> BTreeMap<u64, Vec<u8>> {
        let read = |path: &PathBuf| (std::fs::metadata(path).unwrap().ino(), std::fs::read(path).unwrap());
        paths.iter().map(read).collect()
    };
    for (flagged, tuid) in [(false, ""), (true, ""), (true, "X-TUID: abcdefghijkl\r\n")] {
        eprintln!("flagged {flagged}, {tuid:?}");
        let (before, after): (&[&str], &[&str]) =
            if flagged { (&["\\Flagged"], &["\\Seen"]) } else { (&[], &["\\Flagged", "\\Seen"]) };
        let scene = account("");
        scene.server.state().quirks.message_flag_header = true;
        for n in [1, 2] {
            let bytes = [tuid.as_bytes(), &mail(n)].concat();
            scene.server.state().append("INBOX", &bytes, before, DATE + i64::from(n));
        }
        scene.sync_says(0, &[]);
        let files = contents(&of_mailboxes(&scene));
        assert_eq!(
            files.values().filter(|bytes| bytes.starts_with(b"X-Message-Flag: ")).count(),
            2 * usize::from(flagged)
        );

        scene.server.state().set_flags("INBOX", 1, after);
        happens(&scene);
        let _ = scene.server.take_commands();
        scene.sync_says(i32::from(lost), &[]);
        let told = scene.server.take_commands();
        assert!(!told.iter().any(|c| c.fits("UID FETCH BODY.PEEK[]") || c.name == "APPEND"), "{told:?}");
        assert!(lost || !told.iter().any(|c| c.changes()), "{told:?}");
        let paths = of_mailboxes(&scene);
        assert!(contents(&paths) == files && paths.len() == 2, "a file was touched: {paths:?}");
        let letters = if flagged && !lost { ":2,S" } else { ":2,FS" };
        assert!(paths.iter().any(|path| path.to_str().unwrap().ends_with(letters)), "{paths:?}");
        scene.assert_graves(0);
        scene.assert_quirk("message_flag_header");
        scene.assert_quiet();
    }
}

#[test]
fn f12_f13_a_message_that_was_flagged_meanwhile_is_known_under_its_new_uid() {
    assert_known_again(false, |scene| {
        scene.server.state().renumber("INBOX", 1);
    });
}

#[test]
fn f12_f13_a_message_that_was_flagged_meanwhile_is_known_where_it_was_moved_to() {
    assert_known_again(false, |scene| {
        scene.server.state().move_message("INBOX", 1, "Archive");
    });
}

#[test]
fn f12_f14_messages_that_were_flagged_meanwhile_are_known_under_a_new_uid_validity() {
    assert_known_again(false, |scene| scene.server.state().set_uid_validity("INBOX", 77));
}

#[test]
fn f12_messages_that_were_flagged_meanwhile_are_known_without_the_database() {
    assert_known_again(true, |scene| std::fs::remove_file(scene.account.state_dir().join("a.sqlite3")).unwrap());
}

/// Before this mark was known, the base knew messages with it.
#[test]
fn f12_f14_a_base_that_knows_messages_with_their_mark_is_understood() {
    let scene = account("");
    scene.server.state().quirks.message_flag_header = true;
    for n in [1, 2, 3] {
        scene.server.state().append("INBOX", &mail(n), &["\\Flagged"], DATE + i64::from(n));
    }
    scene.sync_says(0, &[]);
    let files = scene.account.files("INBOX");
    let database = rusqlite::Connection::open(scene.account.state_dir().join("a.sqlite3")).unwrap();
    for path in &files {
        let served = crate::account::served(&std::fs::read(path).unwrap());
        assert!(served.starts_with(b"X-Message-Flag: "));
        let header = served.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let (digest, header) = (Sha256::digest(&served), Sha256::digest(&served[..header]));
        let name = path.file_name().unwrap().as_encoded_bytes().split(|b| *b == b':').next().unwrap();
        let sql = "UPDATE link SET digest = ?1, header = ?2, size = ?3 WHERE name = ?4";
        let row = (digest.as_slice(), header.as_slice(), i64::try_from(served.len()).unwrap(), name);
        assert_eq!(database.execute(sql, row).unwrap(), 1);
    }
    drop(database);
    scene.server.state().set_flags("INBOX", 1, &[]);
    scene.server.state().set_flags("INBOX", 2, &["\\Seen"]);
    scene.server.state().set_uid_validity("INBOX", 77);
    let _ = scene.server.take_commands();
    scene.sync_says(0, &["3 matched by content"]);
    let told = scene.server.take_commands();
    assert!(!told.iter().any(|c| c.fits("UID FETCH BODY.PEEK[]") || c.changes()), "{told:?}");
    assert_eq!(scene.account.files("INBOX").len(), 3);
    scene.assert_graves(0);
    scene.assert_quiet();
}

#[test]
fn f12_f16_an_upload_without_an_answer_is_found_though_it_is_marked_there() {
    let scene = synced(1);
    scene.server.state().quirks.message_flag_header = true;
    let path = scene.delivered(2);
    scene.account.set_info(&path, "F");
    // One that came from there with the mark.
    let path = scene.account.deliver("INBOX", &[b"X-Message-Flag: Follow up\n".to_vec(), mail_here(3)].concat());
    scene.account.set_info(&path, "FS");
    scene.server.inject("APPEND", When::First(2), Fault::Close(At::Unanswered));
    for _ in 0..3 {
        let _ = scene.sync();
    }
    scene.assert_fired("APPEND close");
    scene.sync_says(0, &[]);
    assert_eq!(scene.server.state().messages("INBOX").len(), 3, "one was sent twice");
    assert_eq!(scene.account.files("INBOX").len(), 3, "one was taken for another");
    scene.assert_quirk("message_flag_header");
    scene.assert_quiet();
}

#[test]
fn f13_a_message_with_a_new_uid_is_the_same_message() {
    let scene = synced(4);
    let path = scene.file("INBOX", 2);
    let path = scene.account.set_info(&path, "RS");
    scene.assert_heals();
    scene.server.state().renumber("INBOX", 2);
    let _ = scene.server.take_commands();
    scene.assert_heals();
    assert!(!scene.server.commands().iter().any(|c| c.fits("UID FETCH BODY.PEEK[]") || c.name == "APPEND"));
    assert!(path.exists(), "the file was not kept");
    scene.assert_graves(0);
}

#[test]
fn f15_a_move_that_moved_nothing_is_noticed() {
    let scene = synced(3);
    let path = scene.file("INBOX", 2);
    scene.account.move_to(&path, "Archive");
    scene.server.inject("UID MOVE", When::Nth(1), Fault::MoveNothing);
    scene.assert_heals_within(2);
    scene.assert_fired("UID MOVE move-nothing");
    assert_eq!(scene.account.files("Archive").len(), 1);

    // The older form, a line of its own.
    scene.server.state().quirks.bare_copyuid = true;
    let path = scene.file("INBOX", 1);
    scene.account.move_to(&path, "Archive");
    let _ = scene.server.take_commands();
    scene.assert_heals();
    assert_eq!(scene.account.files("Archive").len(), 2);
}

#[test]
fn f16_what_the_server_does_not_take_is_set_aside() {
    let scene = synced(1);
    scene.server.state().quirks.max_message = Some(2000);
    let large = [mail_here(2), vec![b'x'; 3000]].concat();
    let long = [b"Subject: long\n\n".to_vec(), vec![b'x'; 10_500], b"\n".to_vec()].concat();
    scene.server.state().quirks.max_message_line = Some(1000);
    scene.account.deliver("INBOX", &large);
    scene.account.deliver("INBOX", &long);
    scene.delivered(3);
    scene.sync_says(1, &["Maximum size of appendable message", "skipped"]);
    let _ = scene.server.take_commands();
    scene.sync();
    assert!(!scene.server.take_commands().iter().any(|c| c.name == "APPEND"), "it was sent again unchanged");
    assert_eq!(scene.server.state().messages("INBOX").len(), 2);

    // Cut off before the answer: no double.
    let scene = synced(1);
    scene.delivered(2);
    scene.server.inject("APPEND", When::Nth(1), Fault::Close(At::Unanswered));
    scene.assert_heals_within(2);
    scene.assert_fired("APPEND close");
}

#[test]
fn f17_a_flag_that_append_forgets_is_stored() {
    let scene = synced(1);
    scene.server.state().quirks.append_forgets_flagged = true;
    let path = scene.delivered(2);
    scene.account.set_info(&path, "FS");
    let path = scene.delivered(3);
    scene.account.set_info(&path, "S");
    scene.assert_heals();
    scene.assert_quirk("append_forgets_flagged");
    let flagged = scene.server.state().messages("INBOX").iter().filter(|m| m.flags.contains("\\Flagged")).count();
    assert_eq!(flagged, 1);
}

#[test]
fn f18_what_the_server_cannot_keep_stays_here() {
    let scene = synced(2);
    scene.server.state().quirks.unkept = Unkept::Refused;
    let path = scene.file("INBOX", 1);
    std::fs::write(scene.account.mailbox("INBOX").join("dovecot-keywords"), "0 work\n").unwrap();
    let path = scene.account.set_info(&path, "FPa");
    scene.sync_says(0, &[]);
    scene.sync_says(0, &[]);
    assert!(path.exists(), "the keyword, or the letter of forwarded ones, was taken away");
    let told: Vec<_> = scene.server.commands().into_iter().filter(|c| c.name == "UID STORE").collect();
    assert!(told.iter().all(|c| !c.args.contains("work") && !c.args.contains("Forwarded")), "{told:?}");
    assert!(scene.server.state().messages("INBOX")[0].flags.contains("\\Flagged"));
    // That it would have been refused is known to happen only to those who send it.
    assert!(!told.is_empty() && !scene.server.state().quirks.fired().contains(&"unkept"));
}

#[test]
fn f19_f20_odd_answers_are_understood_and_stray_ones_ignored() {
    let scene = synced(3);
    {
        let mut state = scene.server.state();
        (state.quirks.loose_fetch, state.quirks.idle_news_first) = (true, true);
    }
    scene.server.inject("UID FETCH", When::Every, Fault::stray());
    scene.arrives(4);
    scene.server.state().expunge("INBOX", 2);
    scene.unwanted(2);
    scene.sync();
    scene.assert_fired("UID FETCH send");
    scene.assert_here([1, 3, 4]);
    scene.server.calm();
    scene.assert_heals_within(2);
}

#[test]
fn f28_flags_that_show_late_do_not_go_back_and_forth() {
    let scene = synced(3);
    scene.server.state().quirks.store_lag = Some(Duration::from_secs(1_000_000));
    for (n, letters) in [(1, "S"), (2, "FS"), (3, "R")] {
        let path = scene.file("INBOX", n);
        scene.account.set_info(&path, letters);
    }
    scene.assert_heals();
    scene.assert_quirk("store_lag");
    let stores = |scene: &Scene| scene.server.commands().iter().filter(|c| c.name == "UID STORE").count();
    assert_eq!(stores(&scene), 0, "a pass after the healing one stored flags again");
}

#[test]
fn f27_the_copy_that_the_server_makes_of_what_is_sent_is_the_message() {
    let scene = account("");
    scene.assert_heals();
    let sent = b"From: a@example.org\nMessage-ID: <own@example.org>\nSubject: sent\n\nHello.\n";
    let copy = b"From: a@example.org\r\nMessage-ID: <new@outlook.com>\r\nX-Microsoft-Original-Message-ID: <own@example.org>\r\n\
        Subject: sent\r\n\r\nHello.\r\n";
    let path = scene.account.deliver("Sent", sent);
    scene.account.set_info(&path, "S");
    let later = Duration::from_secs(15 * 60);
    scene.server.state().later(later, move |state| {
        let _ = state.append("Sent", copy, &["\\Seen"], DATE);
    });
    let _ = scene.server.take_commands();
    scene.sync_says(0, &[]);
    scene.sync_says(0, &[]);
    let is_upload = |c: &postkeep_sim::Command| c.name == "APPEND";
    assert!(!scene.server.take_commands().iter().any(is_upload));
    scene.server.state().advance(later);
    scene.sync_says(0, &[]);
    assert!(!scene.server.take_commands().iter().any(|c| is_upload(c) || c.fits("UID FETCH BODY.PEEK[]")));
    assert_eq!((scene.account.files("Sent").len(), scene.server.state().messages("Sent").len()), (1, 1));

    // One that the server makes no copy of goes up after 20 minutes.
    let path = scene.account.deliver("Sent", &mail_here(7));
    scene.account.set_info(&path, "S");
    scene.sync_says(0, &[]);
    crate::outlook::let_pass(&scene.account, "UPDATE link SET since = 1 WHERE state = 2");
    scene.sync_says(0, &[]);
    assert!(scene.server.take_commands().iter().any(is_upload));
    let there: Vec<_> = scene.server.state().messages("Sent").into_iter().map(|m| m.bytes).collect();
    assert!(there.contains(&mail(7)) && there.len() == 2);
}
