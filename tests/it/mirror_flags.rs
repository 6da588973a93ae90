//! Flags and keywords, both ways.

use crate::mirror::{everywhere, letters, on_sims, place};

/// Each message is a row: the flags that both sides had, what happens there, what happens here, and what both are to have.
/// Letters here: `F`, `P`, `R`, `S`, `T`, `D`, and `a` for the keyword `work`, `b` for `home`.
const ROWS: [(&str, &[&str], &str, &str, &str); 20] = [
    ("nothing", &[], "", "", ""),
    ("there-seen", &[], "+\\Seen", "", "\\Seen"),
    ("here-seen", &[], "", "S", "\\Seen"),
    ("both-seen", &[], "+\\Seen", "S", "\\Seen"),
    ("there-unseen", &["\\Seen"], "-\\Seen", "S", ""),
    ("here-unseen", &["\\Seen"], "", "", ""),
    ("both-unseen", &["\\Seen"], "-\\Seen", "", ""),
    ("crosswise", &[], "+\\Seen +\\Answered", "F", "\\Answered \\Flagged \\Seen"),
    ("swapped", &["\\Seen"], "-\\Seen +\\Answered", "FS", "\\Answered \\Flagged"),
    ("swapped-back", &["\\Flagged"], "+\\Answered", "S", "\\Answered \\Seen"),
    ("all-there", &[], "+\\Seen +\\Answered +\\Flagged +\\Draft +\\Deleted +$Forwarded", "", "ALL"),
    ("all-here", &[], "", "DFPRST", "ALL"),
    ("none-here", &["\\Seen", "\\Answered", "\\Flagged", "\\Draft", "\\Deleted", "$Forwarded"], "", "", ""),
    ("forwarded-there", &[], "+$Forwarded", "", "$forwarded"),
    ("forwarded-here", &[], "", "P", "$forwarded"),
    ("keyword-there", &[], "+Home", "", "home"),
    ("keyword-here", &[], "", "a", "work"),
    ("keyword-both", &[], "+HOME", "ab", "home work"),
    ("keyword-gone-there", &["Work", "Home"], "-Work", "ab", "home"),
    ("keyword-gone-here", &["Work", "Home"], "", "a", "work"),
];

#[test]
fn every_combination_of_changes_is_merged() {
    everywhere(|host| {
        let world = host.world("");
        world.append("INBOX", "first", &["work"], 1);
        world.append("INBOX", "second", &["home", "work"], 2);
        world.mirror();
        let keywords = std::fs::read_to_string(world.account.maildir().join("INBOX/dovecot-keywords")).unwrap();
        assert_eq!(keywords, "0 work\n1 home\n");
        for (n, (subject, flags, ..)) in ROWS.iter().enumerate() {
            world.append("INBOX", subject, flags, 100 + n as i64);
        }
        world.mirror();
        for (subject, _, there, here, _) in ROWS {
            if !there.is_empty() {
                world.flag("INBOX", subject, there);
            }
            // A mail reader moves what it shows to cur/, whether it has letters or not.
            if letters(&world.file("INBOX", subject)) != here {
                world.mark("INBOX", subject, here);
            }
        }
        world.mirror();
        world.assert_no_transfer();
        let flags = world.flags("INBOX");
        for (subject, _, there, here, wanted) in ROWS {
            let all = "$forwarded \\Answered \\Deleted \\Draft \\Flagged \\Seen";
            assert_eq!(flags[subject], if wanted == "ALL" { all } else { wanted }, "{subject}: {there} {here}");
        }
        assert_eq!(place(&world.file("INBOX", "nothing")), "new");
    });
}

#[test]
fn many_messages_change_in_few_commands() {
    everywhere(|host| {
        let world = host.world("");
        let subjects: Vec<String> = (0..12).map(|n| format!("m{n}")).collect();
        subjects.iter().for_each(|s| world.append("INBOX", s, &[], 1_000));
        world.mirror();
        subjects.iter().for_each(|s| drop(world.mark("INBOX", s, "S")));
        world.mirror();
        assert_eq!(world.changes(), ["UID STORE"], "{:?}", world.log());
    });
}

/// What PERMANENTFLAGS does not name stays here, and its absence there is no removal.
#[test]
fn what_the_server_cannot_keep_stays_here() {
    on_sims(|host| {
        let world = host.world("");
        world.append("INBOX", "a", &["Old"], 1_000);
        world.append("INBOX", "b", &[], 1_000);
        world.sim().state().set_permanent_flags("INBOX", &["\\Seen", "\\Deleted", "\\Flagged", "Old"]);
        world.mirror();
        std::fs::write(world.account.maildir().join("INBOX/dovecot-keywords"), "0 Old\n1 New\n").unwrap();
        world.mark("INBOX", "a", "PRSb");
        world.mark("INBOX", "b", "a");
        world.deliver("INBOX", "c", 2_000);
        world.mark("INBOX", "c", "DFb");
        for round in 0..3 {
            world.sync(0);
            assert_eq!(letters(&world.file("INBOX", "a")), "PRSb", "{round}");
            assert_eq!(letters(&world.file("INBOX", "c")), "DFb", "{round}");
        }
        let flags = world.flags("INBOX");
        assert_eq!([&flags["a"], &flags["b"], &flags["c"]], ["\\Seen", "old", "\\Flagged"]);
        world.assert_at_rest(0);
        // A change there of what it can keep leaves alone what it cannot.
        world.flag("INBOX", "a", "-\\Seen +\\Flagged");
        world.sync(0);
        assert_eq!(letters(&world.file("INBOX", "a")), "FPRb");
        world.assert_at_rest(0);
    });
}

/// There are 26 letters: the keyword that gets none stays on the server, and neither side takes that for a change.
#[test]
fn the_27th_keyword_stays_there() {
    everywhere(|host| {
        let world = host.world("");
        let words: Vec<String> = (0..28).map(|n| format!("word{n:02}")).collect();
        world.append("INBOX", "many", &words.iter().map(String::as_str).collect::<Vec<_>>(), 1_000);
        world.append("INBOX", "one", &[], 1_000);
        world.sync(0);
        world.assert_at_rest(0);
        assert_eq!(letters(&world.file("INBOX", "many")).len(), 26);
        world.flag("INBOX", "one", "+another +\\Seen");
        world.flag("INBOX", "many", "+\\Seen");
        world.sync(0);
        world.assert_at_rest(0);
        assert_eq!(letters(&world.file("INBOX", "one")), "S");
        assert_eq!(world.flags("INBOX")["one"], "\\Seen another");
        let flags = &world.flags("INBOX")["many"];
        assert_eq!(*flags, format!("\\Seen {}", words.join(" ")));
    });
}
