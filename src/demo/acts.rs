//! What happens in a demonstration, on which side, and what the other side shows when it has crossed.

use super::{Error, Stage};

/// One of the two sides of an account.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The server.
    There,
    /// The Maildirs.
    Here,
}

/// Something that somebody does on one side.
#[derive(Debug)]
pub struct Act {
    /// Where it happens.
    pub side: Side,
    /// What happens.
    pub what: &'static str,
    /// Does it.
    pub perform: fn(&Stage) -> Result<(), Error>,
    /// Returns what the other side shows once it has crossed.
    pub shows: fn(&Stage) -> Option<String>,
}

const DINNER: &str = "Dinner on Friday?";
const REPORT: &str = "The report";
const NEWS: &str = "News of the week";
const DRAFT: &str = "A letter, not finished";
const TICKETS: &str = "Your tickets";

/// What happens, in this order: each act builds on those before.
pub const ACTS: [Act; 10] = [
    Act {
        side: Side::There,
        what: "a message arrives",
        perform: |stage| stage.arrives("INBOX", "Ann <ann@example.net>", DINNER),
        shows: |stage| stage.shown_here("INBOX", DINNER, ""),
    },
    Act {
        side: Side::Here,
        what: "it is read",
        perform: |stage| stage.flag_here("INBOX", DINNER, "S"),
        shows: |stage| stage.shown_there("INBOX", DINNER, &["\\Seen"]),
    },
    Act {
        side: Side::There,
        what: "it is answered, on a telephone",
        perform: |stage| stage.flag_there("INBOX", DINNER, &["\\Seen", "\\Answered"]),
        shows: |stage| stage.shown_here("INBOX", DINNER, "RS"),
    },
    Act {
        side: Side::Here,
        what: "another one is flagged",
        perform: |stage| stage.flag_here("INBOX", REPORT, "F"),
        shows: |stage| stage.shown_there("INBOX", REPORT, &["\\Flagged"]),
    },
    Act {
        side: Side::Here,
        what: "the answered one is moved to the archive",
        perform: |stage| stage.move_here("INBOX", DINNER, "Archive"),
        shows: |stage| stage.shown_there("Archive", DINNER, &["\\Answered", "\\Seen"]),
    },
    Act {
        side: Side::There,
        what: "the flagged one is moved to Projects, a new mailbox",
        perform: |stage| stage.move_there("INBOX", REPORT, "Projects"),
        shows: |stage| stage.shown_here("Projects", REPORT, "F"),
    },
    Act {
        side: Side::Here,
        what: "a draft is written",
        perform: |stage| stage.write_here("Drafts", DRAFT),
        shows: |stage| stage.shown_there("Drafts", DRAFT, &["\\Draft"]),
    },
    Act {
        side: Side::Here,
        what: "a Maildir is made, and a message moved into it",
        perform: |stage| stage.move_here("INBOX", TICKETS, "Travel/2026"),
        shows: |stage| stage.shown_there("Travel/2026", TICKETS, &[]),
    },
    Act {
        side: Side::There,
        what: "a message is deleted for good",
        perform: |stage| stage.delete_there("INBOX", NEWS),
        shows: |stage| stage.buried(NEWS),
    },
    Act {
        side: Side::Here,
        what: "the draft is deleted",
        perform: |stage| stage.delete_here("Drafts", DRAFT),
        shows: |stage| stage.shown_there("Deleted", DRAFT, &["\\Draft"]),
    },
];

/// What goes on when all acts are over.
impl Stage {
    /// Lets the n-th greeting arrive.
    ///
    /// # Errors
    /// None; it is as the acts are.
    pub fn greet(&self, n: u32) -> Result<(), Error> {
        self.arrives("INBOX", "A friend <friend@example.net>", &greeting(n))
    }

    /// Returns what the mirror shows once the n-th greeting has crossed.
    #[must_use]
    pub fn greeted(&self, n: u32) -> Option<String> {
        self.shown_here("INBOX", &greeting(n), "")
    }
}

/// Returns the subject of the n-th greeting.
#[must_use]
pub fn greeting(n: u32) -> String {
    format!("Greetings, {n}")
}

/// What a person has collected over time.
pub(super) struct Collected {
    /// The mailbox.
    pub mailbox: &'static str,
    /// How many messages; their subjects are numbered.
    pub count: u32,
    /// Who wrote them.
    pub from: &'static str,
    /// What they are about.
    pub subject: &'static str,
    /// What they say.
    pub text: &'static str,
    /// Each has a picture attached.
    pub pictures: bool,
}

/// The mail that nothing happens to.
pub(super) const COLLECTED: [Collected; 8] = [
    Collected {
        mailbox: "INBOX",
        count: 70,
        from: "Ann <ann@example.net>",
        subject: "Lunch",
        text: "Shall we meet at one, at the café?",
        pictures: false,
    },
    Collected {
        mailbox: "INBOX",
        count: 50,
        from: "The Choir <choir@example.org>",
        subject: "Rehearsal",
        text: "On Tuesday at eight. Bring the Fauré.",
        pictures: false,
    },
    Collected {
        mailbox: "Archive",
        count: 90,
        from: "Bob <bob@example.net>",
        subject: "Minutes",
        text: "Those who were there: Ann, Bob, Zoë.",
        pictures: false,
    },
    Collected {
        mailbox: "Sent",
        count: 60,
        from: "You <you@outlook.com>",
        subject: "Re: Lunch",
        text: "Gladly!",
        pictures: false,
    },
    Collected {
        mailbox: "Receipts/2025",
        count: 30,
        from: "Shop <orders@example.com>",
        subject: "Your order",
        text: "It cost 12,00 €, and is on its way.",
        pictures: false,
    },
    Collected {
        mailbox: "Travel/Zürich",
        count: 12,
        from: "Zoë <zoe@example.net>",
        subject: "The lake",
        text: "Look at this!",
        pictures: true,
    },
    Collected {
        mailbox: "Familie/Großeltern",
        count: 24,
        from: "Oma <oma@example.org>",
        subject: "Grüße",
        text: "Liebe Grüße aus dem Garten, mit einem Bild.",
        pictures: true,
    },
    Collected {
        mailbox: "日本",
        count: 8,
        from: "Yuki <yuki@example.org>",
        subject: "Visit",
        text: "お元気ですか。",
        pictures: false,
    },
];

/// The mail that something happens to: mailbox, sender, subject, flags.
pub(super) const BEFORE: [(&str, &str, &str, &[&str]); 6] = [
    ("INBOX", "Bob <bob@example.net>", REPORT, &[]),
    ("INBOX", "The News <news@example.org>", NEWS, &["\\Seen"]),
    ("INBOX", "Trains <tickets@example.org>", TICKETS, &[]),
    ("Archive", "Ann <ann@example.net>", "Photographs", &["\\Seen", "\\Flagged"]),
    ("Sent", "You <you@outlook.com>", "Re: Photographs", &["\\Seen"]),
    ("Junk", "A friend <friend@example.com>", "You have won", &[]),
];
