//! The schema refuses rows that cannot be, and rows that cannot be read are damage, not a panic.

use std::collections::BTreeSet;

use rusqlite::Connection;

use super::*;
use crate::model::Side;

const MIGRATIONS: [&str; 2] =
    [include_str!("../../../migrations/0001_base.sql"), include_str!("../../../migrations/0002_failures.sql")];

/// A change that breaks exactly the named CHECK, of a database with a row of each kind.
const BROKEN: &[(&str, &str)] = &[
    ("account_one", "UPDATE account SET id = 2"),
    ("account_generation", "UPDATE account SET generation = -1"),
    ("account_pending", "UPDATE account SET pending_generation = 1"),
    ("account_pending", "UPDATE account SET pending_nonce = 'a'"),
    ("account_pending", "UPDATE account SET pending_generation = -1, pending_nonce = 'a'"),
    ("account_clean", "UPDATE account SET clean = 2"),
    ("account_failure", "UPDATE account SET failed_at = 1"),
    ("account_failure", "UPDATE account SET failure = 'a'"),
    ("account_failure", "UPDATE account SET failed_at = 1, failure = 'a'"),
    ("account_failed_as", "UPDATE account SET failed_at = 1, failure = 'a', failed_as = 'odd'"),
    ("mailbox_name", "UPDATE mailbox SET name = ''"),
    ("mailbox_raw", "UPDATE mailbox SET raw = x''"),
    ("mailbox_path", "UPDATE mailbox SET path = CAST('/etc' AS BLOB)"),
    ("mailbox_path", "UPDATE mailbox SET path = CAST('..' AS BLOB)"),
    ("mailbox_path", "UPDATE mailbox SET path = CAST('../a' AS BLOB)"),
    ("mailbox_path", "UPDATE mailbox SET path = CAST('a/../b' AS BLOB)"),
    ("mailbox_path", "UPDATE mailbox SET path = CAST('a/..' AS BLOB)"),
    ("mailbox_path", "UPDATE mailbox SET path = x'610062'"),
    ("mailbox_cursor", "UPDATE mailbox SET uid_validity = 1"),
    ("mailbox_cursor", "UPDATE mailbox SET uid_next = 1"),
    ("mailbox_cursor", "UPDATE mailbox SET messages = 1"),
    ("mailbox_cursor", "UPDATE mailbox SET highest_mod_seq = 1"),
    ("mailbox_cursor", "UPDATE mailbox SET unseen = 1"),
    ("mailbox_uid_validity", "UPDATE mailbox SET uid_validity = 0, uid_next = 1, messages = 0"),
    ("mailbox_uid_validity", "UPDATE mailbox SET uid_validity = 4294967296, uid_next = 1, messages = 0"),
    ("mailbox_uid_next", "UPDATE mailbox SET uid_validity = 1, uid_next = 0, messages = 0"),
    ("mailbox_highest_mod_seq", "UPDATE mailbox SET uid_validity = 1, uid_next = 1, messages = 0, highest_mod_seq = 0"),
    ("mailbox_messages", "UPDATE mailbox SET uid_validity = 1, uid_next = 1, messages = -1"),
    ("mailbox_unseen", "UPDATE mailbox SET uid_validity = 1, uid_next = 1, messages = 0, unseen = -1"),
    ("mailbox_stamp", "UPDATE mailbox SET new_mtime = 1"),
    ("mailbox_stamp", "UPDATE mailbox SET new_inode = 1"),
    ("mailbox_stamp", "UPDATE mailbox SET cur_mtime = 1"),
    ("mailbox_stamp", "UPDATE mailbox SET cur_inode = 1"),
    ("mailbox_must", "UPDATE mailbox SET must_list = 2"),
    ("mailbox_must", "UPDATE mailbox SET must_scan = -1"),
    ("link_state", "UPDATE link SET state = 4 WHERE state = 0"),
    ("link_state", "UPDATE link SET state = -1 WHERE state = 0"),
    ("link_two_ends", "UPDATE link SET uid = NULL WHERE state = 0"),
    ("link_two_ends", "UPDATE link SET name = NULL WHERE state = 0"),
    ("link_two_ends", "UPDATE link SET uid = NULL WHERE state = 1"),
    ("link_two_ends", "UPDATE link SET name = NULL WHERE state = 1"),
    ("link_upload", "UPDATE link SET uid = 9 WHERE state = 2"),
    ("link_upload", "UPDATE link SET name = NULL WHERE state = 2"),
    ("link_upload", "UPDATE link SET uid_next = NULL WHERE state = 2"),
    ("link_upload", "UPDATE link SET since = NULL WHERE state = 2"),
    ("link_upload", "UPDATE link SET uid_next = 1 WHERE state = 0"),
    ("link_upload", "UPDATE link SET since = 1 WHERE state = 3"),
    ("link_skipped", "UPDATE link SET uid = NULL WHERE state = 3"),
    ("link_skipped", "UPDATE link SET flags = 1 WHERE state = 3"),
    ("link_skipped", "UPDATE link SET keywords = 'a' WHERE state = 3"),
    ("link_skipped", "UPDATE link SET reason = NULL WHERE state = 3"),
    ("link_skipped", "UPDATE link SET reason_text = NULL WHERE state = 3"),
    ("link_skipped", "UPDATE link SET reason = 1 WHERE state = 0"),
    ("link_skipped", "UPDATE link SET reason_text = 'a' WHERE state = 2"),
    ("link_uid", "UPDATE link SET uid = 0 WHERE state = 0"),
    ("link_uid", "UPDATE link SET uid = 4294967296 WHERE state = 0"),
    ("link_uid_next", "UPDATE link SET uid_next = 0 WHERE state = 2"),
    ("link_name", "UPDATE link SET name = x'' WHERE state = 0"),
    ("link_flags", "UPDATE link SET flags = 64 WHERE state = 0"),
    ("link_flags", "UPDATE link SET flags = -1 WHERE state = 0"),
    ("link_content", "UPDATE link SET digest = NULL WHERE state = 0"),
    ("link_content", "UPDATE link SET header = NULL WHERE state = 0"),
    ("link_content", "UPDATE link SET size = NULL WHERE state = 0"),
    ("link_digest", "UPDATE link SET digest = x'00' WHERE state = 0"),
    ("link_header", "UPDATE link SET header = x'00' WHERE state = 0"),
    ("link_size", "UPDATE link SET size = -1 WHERE state = 0"),
    ("link_reason", "UPDATE link SET reason = 4 WHERE state = 3"),
    ("held_side", "UPDATE held SET side = 'both'"),
    ("held_approved", "UPDATE held SET approved = 2"),
    ("held_mailbox_approved", "UPDATE held_mailbox SET approved = 2"),
    ("held_mailbox_cause", "UPDATE held_mailbox SET cause = 2"),
];

/// A database with a link of each state in one mailbox, everything held.
fn filled() -> Connection {
    let conn = open::memory().unwrap();
    conn.execute_batch("BEGIN").unwrap();
    let tx = Tx { conn: &conn, file: Path::new("test"), writable: true };
    let m = mailbox(&tx, "INBOX");
    let id = tx.insert_link(m, &synced(1)).unwrap();
    let (uid_next, since, reason) = (uid(7), 7, SkipReason::TooLarge(7));
    for state in [
        LinkState::Downloading { uid: uid(2), name: name("2"), flags: flags(1, "a b") },
        LinkState::Uploading { name: name("3"), flags: flags(1, "a b"), uid_next, since },
        LinkState::Skipped { uid: Some(uid(4)), name: None, reason },
    ] {
        tx.insert_link(m, &new(state)).unwrap();
    }
    tx.hold(m, &[(id, Side::Local)]).unwrap();
    tx.hold_mailbox(m, crate::db::HoldCause::MaildirMissing, "missing").unwrap();
    conn.execute_batch("COMMIT").unwrap();
    conn
}

#[test]
fn impossible_rows_are_refused() {
    let conn = filled();
    for (rule, sql) in BROKEN {
        let error = conn.execute(sql, []).expect_err(sql).to_string();
        assert_eq!(error, format!("CHECK constraint failed: {rule}"), "{sql}");
    }
}

#[test]
fn every_check_is_tried() {
    let words: Vec<&str> = MIGRATIONS
        .iter()
        .flat_map(|m| m.lines())
        .filter(|l| !l.trim().starts_with("--"))
        .flat_map(str::split_whitespace)
        .collect();
    let named = words.windows(3).filter(|w| w[0] == "CONSTRAINT" && w[2] == "CHECK").map(|w| w[1]);
    assert_eq!(named.clone().collect::<BTreeSet<_>>(), BROKEN.iter().map(|(rule, _)| *rule).collect::<BTreeSet<_>>());
    assert_eq!(named.count(), words.iter().filter(|w| **w == "CHECK").count(), "a CHECK has no name");
}

#[test]
fn rows_do_not_share_what_is_theirs_alone() {
    let conn = filled();
    for (rule, sql) in [
        ("UNIQUE constraint failed: link.mailbox, link.uid", "UPDATE link SET uid = 1 WHERE uid = 2"),
        ("UNIQUE constraint failed: link.mailbox, link.name", "UPDATE link SET name = x'33' WHERE uid = 2"),
        (
            "UNIQUE constraint failed: mailbox.name",
            "INSERT INTO mailbox (name, must_list, must_scan) VALUES ('INBOX', 0, 0)",
        ),
        (
            "UNIQUE constraint failed: mailbox.path",
            "INSERT INTO mailbox (name, path, must_list, must_scan) VALUES ('a', x'61', 0, 0), ('b', x'61', 0, 0)",
        ),
        ("FOREIGN KEY constraint failed", "UPDATE link SET mailbox = 99"),
        ("FOREIGN KEY constraint failed", "DELETE FROM mailbox"),
        ("FOREIGN KEY constraint failed", "UPDATE held SET link = 99"),
        ("FOREIGN KEY constraint failed", "UPDATE held_mailbox SET mailbox = 99"),
        ("NOT NULL constraint failed: link.flags", "UPDATE link SET flags = NULL"),
        (
            "NOT NULL constraint failed: journal.cause",
            "INSERT INTO journal (at, mailbox, op, kind) VALUES (1, '', '', '')",
        ),
        ("cannot store TEXT value in INTEGER column link.flags", "UPDATE link SET flags = 'many'"),
        ("cannot store TEXT value in BLOB column link.name", "UPDATE link SET name = 'text'"),
    ] {
        assert_eq!(conn.execute(sql, []).expect_err(sql).to_string(), rule, "{sql}");
    }
}

#[test]
fn rows_that_cannot_be_read_are_damage() {
    for sql in [
        "UPDATE link SET uid = 0 WHERE state = 0",
        "UPDATE link SET uid = 4294967296 WHERE state = 0",
        "UPDATE link SET uid = NULL WHERE state = 0",
        "UPDATE link SET name = NULL WHERE state = 0",
        "UPDATE link SET flags = 64 WHERE state = 0",
        "UPDATE link SET flags = 256 WHERE state = 0",
        "UPDATE link SET keywords = 'a(b' WHERE state = 0",
        "UPDATE link SET keywords = CAST(x'ff' AS TEXT) WHERE state = 0",
        "UPDATE link SET digest = x'00' WHERE state = 0",
        "UPDATE link SET header = NULL WHERE state = 0",
        "UPDATE link SET size = -1 WHERE state = 0",
        "UPDATE link SET state = 4 WHERE state = 0",
        "UPDATE link SET uid_next = 0 WHERE state = 2",
        "UPDATE link SET since = NULL WHERE state = 2",
        "UPDATE link SET reason = 4 WHERE state = 3",
        "UPDATE link SET reason_text = 'many' WHERE state = 3",
        "UPDATE mailbox SET uid_validity = 1",
        "UPDATE mailbox SET new_mtime = 1",
        "UPDATE mailbox SET path = x'2e2e'",
        "UPDATE mailbox SET path = x'2f'",
        "UPDATE mailbox SET uid_validity = 0, uid_next = 1, messages = 1",
        "UPDATE account SET generation = -1",
        "UPDATE account SET pending_generation = 1",
        "DELETE FROM account",
        "UPDATE held SET side = 'both'",
    ] {
        let conn = filled();
        conn.execute_batch("PRAGMA ignore_check_constraints = ON").unwrap();
        conn.execute(sql, []).unwrap();
        let tx = Tx { conn: &conn.unchecked_transaction().unwrap(), file: Path::new("/x/a.sqlite3"), writable: false };
        let read_all = || {
            tx.account()?;
            for mailbox in tx.mailboxes()? {
                tx.held(mailbox.id)?;
            }
            tx.links_by_ids(&[1, 2, 3, 4].map(crate::model::LinkId))
        };
        let error = read_all().expect_err(sql);
        assert!(matches!(&error, Error::Corrupt { file, .. } if file == Path::new("/x/a.sqlite3")), "{sql}: {error}");
    }
}
