//! The first pass over a mailbox, in either direction.

use crate::mirror::{Host, Kind, everywhere, letters, message, on_sims, place};
use crate::{dovecot, reader};

/// Mails as they come, and as nobody should write them.
fn oddities() -> Vec<Vec<u8>> {
    let mut mails: Vec<Vec<u8>> = vec![
        b"Subject: without a message id\r\n\r\nx\r\n".to_vec(),
        b"\r\nno header at all\r\n".to_vec(),
        b"Subject: header only\r\n\r\n".to_vec(),
        b"Subject: header without an end\r\n".to_vec(),
        b"Subject: no line end at the end\r\n\r\nx".to_vec(),
        b"no colon in this line\r\n\r\nx\r\n".to_vec(),
        b"Subject: 8 bit\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\xc3\xa4\xff\xfe\x80\r\n".to_vec(),
        b"Subject: \xe4 in the header\r\n\r\n{3}\r\nabc)\r\n* 1 FETCH (UID 9)\r\n".to_vec(),
        b"Subject: dots\r\n\r\n.\r\n..\r\nFrom here\r\n".to_vec(),
        [b"Subject: long line\r\n\r\n".as_slice(), &vec![b'x'; 70_000], b"\r\n"].concat(),
    ];
    // One header, three bodies of one size; and three times the same mail.
    mails.extend(["1", "2", "3"].map(|n| format!("Subject: same header\r\n\r\n{n}\r\n").into_bytes()));
    mails.extend([(); 3].map(|()| b"Subject: identical\r\n\r\nx\r\n".to_vec()));
    mails
}

#[test]
fn everything_comes_here() {
    everywhere(|host| {
        let world = host.world("");
        for (n, mail) in oddities().iter().enumerate() {
            world.append_bytes("INBOX", mail, &[], 951_782_400 + n as i64 * 86_400);
        }
        for mailbox in ["Lists", "Lists/rust", "Lists/rust/users", "Entwürfe", "A & B", "日本/💩"] {
            world.create(mailbox);
            world.append(mailbox, "hello", &["\\Seen"], 1_000_000_000);
        }
        world.create("Empty");
        world.append("INBOX", "all flags", &["\\Seen", "\\Answered", "\\Flagged", "\\Draft", "\\Deleted"], 1);
        world.append("INBOX", "keywords", &["$Forwarded", "Work", "$Label1"], 2_000_000_000);
        world.append("INBOX", "unread", &[], 1_500_000_000);
        world.mirror();
        assert_eq!(letters(&world.file("INBOX", "all flags")), "DFRST");
        assert_eq!(place(&world.file("INBOX", "unread")), "new");
        assert_eq!(place(&world.file("INBOX", "keywords")), "cur");
        assert_eq!(world.files("INBOX", "identical").len(), 3);
    });
}

/// Real servers mend such line ends; what is served is stored as it is.
#[test]
fn odd_line_ends_come_as_they_are() {
    on_sims(|host| {
        let world = host.world("");
        for body in ["a\nb\r\n", "a\rb\r\n", "a\r\r\nb", "\n", "\r", "a\n", "\r\n", "Subject: lf only\n\nx\n"] {
            world.append_bytes("INBOX", body.as_bytes(), &[], 1_000);
        }
        world.mirror();
        let file = &world.file("INBOX", "lf only");
        assert_eq!(std::fs::read(file).unwrap(), b"Subject: lf only\n\nx\n\r", "the last CR says that LFs are bare");
    });
}

#[test]
fn everything_goes_there() {
    everywhere(|host| {
        let world = host.world("");
        for (n, mail) in oddities().iter().enumerate() {
            let text: Vec<u8> = mail.iter().copied().filter(|b| *b != b'\r').collect();
            let path = world.account.deliver("INBOX", &text);
            world.account.set_date(&path, 951_782_400 + n as u64 * 86_400);
        }
        for mailbox in ["INBOX", "Lists/rust/users", "Entwürfe", "日本/💩"] {
            world.deliver(mailbox, "hello", 1_000_000_000);
            world.mark(mailbox, "hello", "FRS");
        }
        let path = world.account.deliver("INBOX", b"Subject: crlf\r\n\r\nas it is\r\n");
        world.account.set_date(&path, 5);
        std::fs::write(world.account.maildir().join("INBOX/dovecot-keywords"), "0 Work\n3 $Label1\n").unwrap();
        world.deliver("INBOX", "keywords", 1_000_000_001);
        world.mark("INBOX", "keywords", "PSad");
        world.mirror();
        assert_eq!(world.flags("INBOX")["keywords"], "$forwarded $label1 \\Seen work");
        assert_eq!(world.uids("INBOX", "identical").len(), 3);
        assert!(!world.fetched_bodies());
    });
}

#[test]
fn both_at_once_are_united() {
    everywhere(|host| {
        let world = host.world("");
        // In common, with other flags; three there and two here; only there; only here.
        world.append("INBOX", "common", &["\\Seen", "\\Deleted"], 1_000);
        world.deliver("INBOX", "common", 1_000);
        world.mark("INBOX", "common", "FR");
        (0..3).for_each(|_| world.append("INBOX", "thrice", &[], 2_000));
        (0..2).for_each(|_| drop(world.deliver("INBOX", "thrice", 2_000)));
        world.append("INBOX", "there", &[], 3_000);
        world.deliver("INBOX", "here", 4_000);
        world.create("Only there");
        world.deliver("Only here", "mail", 5_000);
        world.mirror();
        assert_eq!(world.listing(), "INBOX: common here there thrice thrice thrice; Only here: mail; Only there:");
        assert_eq!(world.flags("INBOX")["common"], "\\Answered \\Flagged \\Seen");
        let appended = world.log().iter().filter(|c| c.name == "APPEND").count();
        assert_eq!(appended, 2, "what both had is not sent: {:?}", world.log());
    });
}

#[test]
fn later_mail_crosses_from_either_side() {
    everywhere(|host| {
        let world = host.world("");
        world.append("INBOX", "old", &["\\Seen"], 1_000);
        world.mirror();
        world.append("INBOX", "there", &[], 2_000);
        world.append("INBOX", "there and read", &["\\Seen"], 3_000);
        world.deliver("INBOX", "here", 4_000);
        world.deliver("INBOX", "here and flagged", 5_000);
        world.mark("INBOX", "here and flagged", "FS");
        world.mirror();
        let there = world.remote().mails();
        let here = there["INBOX"].iter().find(|(_, mail)| mail.bytes == message("here")).map(|(_, mail)| mail);
        assert_eq!(here.map(|mail| mail.date), Some(4_000), "the bytes of the file with CRLF, and its date");
        assert_eq!(world.flags("INBOX")["here and flagged"], "\\Flagged \\Seen");
        let places = ["there", "there and read", "here"].map(|subject| world.file("INBOX", subject));
        assert_eq!(places.each_ref().map(|path| place(path)), ["new", "cur", "new"]);
        let fetched = world.log().iter().filter(|c| c.args.contains("BODY.PEEK[]")).count();
        assert_eq!(fetched, 1, "only what is new is fetched: {:?}", world.log());
    });
}

#[test]
fn a_huge_message_comes_and_goes() {
    let host = Host::start(Kind::Dovecot(dovecot::Profile::Full.into()));
    let world = host.world("");
    let line = [b"0123456789abcdef".repeat(4).as_slice(), b"\r\n"].concat();
    let body = line.repeat((30 << 20) / line.len());
    world.append_bytes("INBOX", &[b"Subject: huge\r\n\r\n".as_slice(), &body].concat(), &[], 1_000);
    let text: Vec<u8> = body.iter().copied().filter(|b| *b != b'\r').collect();
    let path = world.account.deliver("INBOX", &[b"Subject: huge too\n\n".as_slice(), &text].concat());
    world.account.set_date(&path, 2_000);
    world.mirror();
    assert_eq!(world.remote().mails()["INBOX"].len(), 2);
    let flags: Vec<_> = world.remote().mails()["INBOX"].iter().map(|(_, m)| m.flags.clone()).collect();
    assert_eq!(flags, [reader::flags([]), reader::flags([])]);
}
