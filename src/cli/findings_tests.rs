use super::*;

const MINE: Access = Access { ours: true, mode: 0o600 };

fn held(finding: &Finding, mark: Mark, words: &str) {
    let said = format!("{} {}", finding.text, finding.advice.as_deref().unwrap_or_default());
    assert!(finding.mark == mark && said.contains(words), "{words}: {finding:?}");
    // What is wrong says what to do.
    assert!(finding.advice.is_some() || !matches!(mark, Mark::Problem(_)), "{finding:?}");
}

fn capabilities(names: &str) -> Capabilities {
    Capabilities::new(names.split(' ').map(ToOwned::to_owned), &Quirks::default())
}

#[test]
fn files_that_others_can_use() {
    let path = Path::new("/p");
    let usage = Mark::Problem(Exit::Usage);
    let access = |ours, mode| Access { ours, mode };
    let rows = [
        (MINE, Mark::Ok, "/p: 2 accounts"),
        (access(true, 0o644), Mark::Ok, "/p: 2 accounts"),
        (access(true, 0o664), usage, "chmod 600 /p"),
        (access(true, 0o602), usage, "names programs to start"),
        (access(false, 0o644), Mark::Note, "another user"),
    ];
    for (access, mark, words) in rows {
        held(&configuration(path, access, 2), mark, words);
    }
    let file = |name: &str, mode| (name.to_owned(), mode);
    let rows = [
        (None, vec![], Mark::Ok, "not there yet"),
        (Some(access(true, 0o700)), vec![], Mark::Ok, "for you alone"),
        (Some(access(true, 0o770)), vec![], usage, "chmod go-w /p"),
        (Some(access(false, 0o755)), vec![], usage, "must be yours"),
        (Some(access(true, 0o755)), vec![file("a.token", 0o640)], Mark::Problem(Exit::SignIn), "chmod 600 /p/a.token"),
        (Some(access(true, 0o700)), vec![file("a.sqlite3", 0o644)], Mark::Note, "a.sqlite3"),
    ];
    for (access, files, mark, words) in rows {
        held(&state_dir(path, access, &files), mark, words);
    }
    held(&root(path, access(true, 0o700), true), Mark::Ok, "for you alone");
    held(&root(path, access(true, 0o755), true), Mark::Note, "chmod 700 /p");
    held(&root(path, access(true, 0o700), false), Mark::Problem(Exit::Held), "cannot be written to");
}

#[test]
fn room_on_the_disk() {
    let partial = Mark::Problem(Exit::Partial);
    let rows = [
        (50_000_000_000, Some(1_000_000), Mark::Ok, "50.0 GB left at /p and room for 1,000,000 files"),
        (50_000_000_000, None, Mark::Ok, "50.0 GB left at /p"),
        (500_000_000, None, Mark::Note, "make room"),
        (50_000_000_000, Some(7), Mark::Note, "make room"),
        (999_999, None, partial, "make room"),
        (50_000_000_000, Some(0), partial, "0 files"),
    ];
    for (bytes, files, mark, words) in rows {
        held(&disk(Path::new("/p"), Left { bytes, files }), mark, words);
    }
}

#[test]
fn kinds_of_file_systems() {
    let rows = [
        (0xef53, 255, None, Mark::Ok, "ext4 renames without replacing"),
        (0x0102_1994, 255, Some(false), Mark::Ok, "tmpfs"),
        (0xef53, 255, Some(true), Mark::Note, "upper and lower case"),
        (0xef53, 143, None, Mark::Note, "at most 143 bytes"),
        (0x6969, 255, None, Mark::Note, "NFS may not rename without replacing"),
        (0x4d44, 255, Some(true), Mark::Problem(Exit::Partial), "FAT has no file names with a colon"),
        (0x1234, 255, None, Mark::Note, "0x1234"),
    ];
    for (kind, longest_name, ignores_case, mark, words) in rows {
        held(&file_system(FileSystem { kind, longest_name, ignores_case }), mark, words);
    }
}

#[test]
fn directories_to_watch() {
    held(&inotify(12, Some(8192)), Mark::Ok, "12 directories are to be watched, and 8,192 may be");
    held(&inotify(9000, Some(8192)), Mark::Note, "max_user_watches=18000");
    held(&inotify(1, None), Mark::Note, "does not tell");
}

#[test]
fn clocks_that_are_apart() {
    let rows = [
        (None, Mark::Ok, "was not compared"),
        (Some(0), Mark::Ok, "agrees"),
        (Some(-119), Mark::Ok, "agrees"),
        (Some(600), Mark::Note, "10 minutes behind"),
        (Some(-8 * 3600), Mark::Note, "8 hours ahead of"),
        (Some(9 * 86_400), Mark::Note, "9 days behind"),
    ];
    for (ahead, mark, words) in rows {
        held(&clock(ahead), mark, words);
    }
}

#[test]
fn certificates_that_end() {
    let day = 86_400;
    held(&tls(true, "h", Some(90 * day), "2027-01-01", 0), Mark::Ok, "until 2027-01-01 (90 days)");
    held(&tls(true, "h", Some(3 * day), "2027-01-01", 0), Mark::Note, "(3 days)");
    held(&tls(true, "h", None, "", 0), Mark::Ok, "can be trusted");
    held(&tls(false, "127.0.0.1", None, "", 0), Mark::Note, "on this machine");
}

#[test]
fn sign_ins() {
    let lifetime = Duration::from_secs(3600);
    held(
        &renewed("/p/a.token", Some("u@outlook.com"), lifetime),
        Mark::Ok,
        "of u@outlook.com is kept in /p/a.token; it was",
    );
    held(&renewed("/p/a.token", None, lifetime), Mark::Ok, "good for 60 minutes");
    held(&password_at_outlook("a"), Mark::Problem(Exit::SignIn), "postkeep login a");
    held(&no_client_id("a"), Mark::Problem(Exit::SignIn), "https://entra.microsoft.com");
    assert_eq!(CLIENT_ID.matches(". ").count() + 1, 2, "it is two sentences");
    held(&only_mailboxes(), Mark::Ok, "mailboxes only");
}

#[test]
fn what_a_server_can_do_leads_to() {
    let (plain, outlook) = (Quirks::default(), Quirks::outlook());
    let rows = [
        ("ENABLE QRESYNC CONDSTORE", &plain, Mark::Ok, "(QRESYNC)"),
        ("CONDSTORE", &plain, Mark::Ok, "(CONDSTORE)"),
        ("IDLE", &outlook, Mark::Ok, "swept by SEARCH"),
        ("IDLE", &plain, Mark::Note, "listed in full"),
    ];
    for (names, quirks, mark, words) in rows {
        held(&strategy(&capabilities(names), quirks), mark, words);
    }
    let watched = ["INBOX".to_owned(), "Sent".to_owned()];
    held(&watching(&capabilities("IDLE NOTIFY"), &watched, "5 minutes"), Mark::Ok, "all mailboxes (NOTIFY)");
    held(&watching(&capabilities("IDLE"), &watched, "5 minutes"), Mark::Ok, "INBOX, Sent (IDLE)");
    held(&watching(&capabilities("X"), &watched, "5 minutes"), Mark::Note, "each 5 minutes");
    held(&watching(&capabilities("IDLE"), &[], "5 minutes"), Mark::Ok, "watch is empty");
    held(&extensions(&capabilities("UIDPLUS MOVE")), Mark::Ok, "UIDPLUS and MOVE");
    held(&extensions(&capabilities("UIDPLUS")), Mark::Note, "no MOVE: ");
    held(&mailboxes(1, &[]), Mark::Ok, "1 mailbox mirrored");
    held(&mailboxes(2, &["Notes".to_owned()]), Mark::Ok, "2 mailboxes mirrored; left out: Notes");
    held(&mailboxes(0, &["Notes".to_owned()]), Mark::Note, "it lets none in");
}

#[test]
fn a_daemon_runs_or_not() {
    held(&daemon(true, false), Mark::Ok, "it runs");
    held(&daemon(false, true), Mark::Note, "postkeep service status");
    held(&daemon(false, false), Mark::Note, "postkeep service install");
}

#[test]
fn the_worst_decides_and_only_problems_count() {
    assert_eq!((Mark::Ok.exit(), Mark::Note.exit()), (Exit::Done, Exit::Done));
    assert_eq!(Mark::Problem(Exit::Held).exit(), Exit::Held);
    let json = serde_json::to_value(Finding::note("tls", "x").advise("y")).unwrap();
    assert_eq!(json, serde_json::json!({"topic": "tls", "mark": "note", "text": "x", "advice": "y"}));
}
