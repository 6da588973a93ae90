//! `postkeep status`: how things stand, and why.

use std::fmt::Write as _;

use jiff::tz::TimeZone;
use serde::Serialize;

use super::output::{self, Paint, grouped, harmless, many, shortened};
use super::time::Moment;
use super::{Exit, Failure, approve, live};
use crate::config::{Account, Config};
use crate::daemon::Live;
use crate::db::{self, Db, HoldCause, Tx};
use crate::engine::report::Outcome;
use crate::model::{Link, LinkState, MailboxName, SkipReason};

/// Show how things stand, and why
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The account [default: all]
    #[arg(value_name = "ACCOUNT")]
    account: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// Show what is going on, until it is interrupted
    #[arg(long, conflicts_with = "json")]
    watch: bool,
}

/// How an account stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct AccountStatus {
    pub(super) account: String,
    pub(super) maildir: String,
    /// True if a pass is going on, or the last one broke off.
    pub(super) under_way: bool,
    /// Why the last pass ended before it was through; none since one was.
    pub(super) failure: Option<FailedPass>,
    /// Until when the server is left alone, and why, if it is.
    pub(super) quiet: Option<Quiet>,
    /// Since when the server has accepted sign-ins and not opened the mailbox.
    pub(super) not_connected_since: Option<Moment>,
    /// When the mailbox that is furthest behind was last complete; none if one never was.
    pub(super) last_complete: Option<Moment>,
    pub(super) mailboxes: Vec<MailboxStatus>,
}

/// A pass that ended before it was through.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct FailedPass {
    at: Moment,
    text: String,
    /// The code that `sync` ended with.
    exit_code: u8,
    #[serde(skip)]
    exit: Exit,
}

/// A time in which the server is left alone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Quiet {
    until: Moment,
    why: String,
}

/// How a mailbox stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct MailboxStatus {
    pub(super) mailbox: String,
    /// Messages that both sides have.
    pub(super) synced: u64,
    /// Messages whose transfer was begun.
    pub(super) pending: u64,
    /// Messages that the server lists and does not give yet.
    pub(super) withheld: Vec<WithheldMessage>,
    /// Changes of messages on both sides that the server refused.
    pub(super) refused: Vec<RefusedChange>,
    pub(super) skipped: Vec<SkippedMessage>,
    pub(super) held: Option<HeldRemovals>,
    pub(super) last_complete: Option<Moment>,
    pub(super) missing_since: Option<Moment>,
    pub(super) problem: Option<String>,
}

/// A message that the server lists and does not give.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct WithheldMessage {
    uid: Option<u32>,
    /// How often it was asked for.
    tries: u32,
    /// When it is asked for again.
    next: Moment,
}

/// A message that cannot be transferred.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct SkippedMessage {
    uid: Option<u32>,
    file: Option<String>,
    reason: String,
    /// How often the server refused it, and when it is tried again, if it is by itself.
    again: Option<Again>,
}

/// A change that the server refused.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct RefusedChange {
    uid: Option<u32>,
    reason: String,
    again: Again,
}

/// What is tried again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Again {
    /// How often it was tried.
    tries: u32,
    /// When it is tried again; none if only `postkeep sync` does.
    next: Option<Moment>,
}

/// Removals that wait for approval.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct HeldRemovals {
    /// How many would be removed from the maildir.
    here: u64,
    /// How many would be removed from the server.
    on_server: u64,
    /// How many more are approved and wait for the next pass.
    approved: u64,
    /// Why the mailbox is held as a whole, if it is.
    why: Option<String>,
    since: Option<Moment>,
    /// False for a mailbox that only waits to go on.
    #[serde(skip)]
    removes: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Document<'a> {
    accounts: &'a [AccountStatus],
    /// What the daemon is doing; none if none runs.
    daemon: Option<Live>,
    exit_code: u8,
}

/// Runs the command.
pub(super) async fn run(args: &Args, config: &Config, paint: Paint) -> Result<Exit, Failure> {
    let accounts = match &args.account {
        Some(name) => vec![super::account(config, name)?],
        None => config.accounts.iter().collect(),
    };
    if args.watch {
        return live::watch(&accounts, config, paint).await;
    }
    let daemon = live::ask(config).await?;
    let mut all = Vec::new();
    for account in accounts {
        all.push(gather(account, config).await?);
    }
    let exit = Exit::of_all(all.iter().map(AccountStatus::exit));
    let text = if args.json {
        serde_json::to_string_pretty(&Document { accounts: &all, daemon, exit_code: exit.code() })? + "\n"
    } else {
        let (now, zone) = (Moment::now(), TimeZone::system());
        let texts = all.iter().map(|account| {
            let doing = daemon.as_ref().and_then(|live| live.accounts.iter().find(|a| a.account == account.account));
            let doing = doing.map(|doing| format!("  {}\n", live::sentence(doing, now, paint))).unwrap_or_default();
            render(account, now, &zone, paint) + &doing
        });
        texts.collect::<Vec<_>>().join("\n")
    };
    output::print(&text)?;
    Ok(exit)
}

/// Reads how an account stands; of one that was never synced, nothing is known.
pub(super) async fn gather(account: &Account, config: &Config) -> Result<AccountStatus, db::Error> {
    let file = config.daemon.database(&account.name);
    let (under_way, failure, mailboxes, service) = if file.exists() {
        let read = |tx: &Tx<'_>| Ok((!tx.account()?.clean, tx.failure()?, gather_mailboxes(tx)?, tx.service()?));
        Db::open(&file)?.read(read).await?
    } else {
        (false, None, vec![], db::Service::default())
    };
    let failure = failure.map(|failure| {
        let exit = Exit::from(Outcome::from_word(&failure.outcome));
        FailedPass { at: Moment::from_seconds(failure.at), text: failure.text, exit_code: exit.code(), exit }
    });
    let quiet = service.quiet_at(jiff::Timestamp::now().as_second());
    let quiet = quiet.map(|(until, why)| Quiet { until: Moment::from_seconds(until), why: why.to_owned() });
    let not_connected_since = service.not_connected_since.map(Moment::from_seconds);
    let last_complete = mailboxes.iter().map(|m| m.last_complete).min().flatten();
    let (account, maildir) = (account.name.clone(), account.maildir.display().to_string());
    Ok(AccountStatus { account, maildir, under_way, failure, quiet, not_connected_since, last_complete, mailboxes })
}

fn gather_mailboxes(tx: &Tx<'_>) -> Result<Vec<MailboxStatus>, db::Error> {
    let mut all = Vec::new();
    for mailbox in tx.mailboxes()? {
        let counts = tx.count(mailbox.id)?;
        let (skipped_links, waiting) = (tx.skipped(mailbox.id)?, tx.again(mailbox.id)?);
        let waits = |id| waiting.iter().find(|row| row.link == id);
        let again = |row: &db::Again| Again { tries: row.tries, next: row.next_at.map(Moment::from_seconds) };
        let withheld = skipped_links.iter().filter_map(|link| {
            let Again { tries, next } = again(waits(link.id)?);
            Some(WithheldMessage { uid: Some(link.uid()?.get()), tries, next: next? })
        });
        let withheld: Vec<_> = withheld.collect();
        let uids: Vec<u32> = withheld.iter().filter_map(|message| message.uid).collect();
        let is_withheld = |message: &SkippedMessage| message.uid.is_some_and(|uid| uids.contains(&uid));
        let skipped = skipped_links.iter().filter_map(|link| skipped(link, waits(link.id).map(again)));
        let mut refused = Vec::new();
        for row in waiting.iter().filter(|row| !skipped_links.iter().any(|link| link.id == row.link)) {
            let uid = tx.link(row.link)?.and_then(|link| link.uid()).map(crate::model::Uid::get);
            refused.push(RefusedChange { uid, reason: row.why.clone(), again: again(row) });
        }
        all.push(MailboxStatus {
            mailbox: mailbox.name.as_str().to_owned(),
            synced: counts.synced,
            pending: counts.downloading + counts.uploading,
            skipped: skipped.filter(|message| !is_withheld(message)).collect(),
            withheld,
            refused,
            held: held(&tx.held(mailbox.id)?, tx.mailbox_hold(mailbox.id)?),
            last_complete: mailbox.last_complete.map(Moment::from_seconds),
            missing_since: mailbox.missing_since.map(Moment::from_seconds),
            problem: mailbox.problem,
        });
    }
    all.sort_by(|a, b| (a.mailbox != "INBOX", &a.mailbox).cmp(&(b.mailbox != "INBOX", &b.mailbox)));
    Ok(all)
}

fn skipped(link: &Link, again: Option<Again>) -> Option<SkippedMessage> {
    match &link.state {
        // That is how it is meant to be.
        LinkState::Skipped { reason: SkipReason::Kept, .. } => None,
        LinkState::Skipped { uid, name, reason } => Some(SkippedMessage {
            uid: uid.map(crate::model::Uid::get),
            file: name.as_ref().map(ToString::to_string),
            reason: reason.text(),
            again,
        }),
        LinkState::Synced { .. } | LinkState::Downloading { .. } | LinkState::Uploading { .. } => None,
    }
}

fn held(removals: &[db::Held], whole: Option<db::MailboxHold>) -> Option<HeldRemovals> {
    let waiting = |side| removals.iter().filter(|h| !h.approved && h.side == side).count() as u64;
    let approved = removals.iter().filter(|h| h.approved).count() as u64;
    let whole = whole.filter(|hold| !hold.approved);
    let since = removals.iter().map(|h| h.at).chain(whole.iter().map(|hold| hold.at)).min();
    (!removals.is_empty() || whole.is_some()).then(|| HeldRemovals {
        here: waiting(crate::model::Side::Local),
        on_server: waiting(crate::model::Side::Remote),
        approved,
        removes: whole.as_ref().is_none_or(|hold| hold.cause == HoldCause::MaildirMissing),
        why: whole.map(|hold| hold.reason),
        since: since.map(Moment::from_seconds),
    })
}

impl Again {
    fn sentence(&self, when: &dyn Fn(Moment) -> String) -> String {
        let next =
            self.next.map_or_else(|| "with the next postkeep sync".to_owned(), |next| format!("due {}", when(next)));
        format!("tried {}, next try {next}", times(self.tries))
    }
}

impl HeldRemovals {
    fn waits(&self) -> bool {
        self.here + self.on_server > 0 || self.why.is_some()
    }
}

impl MailboxStatus {
    pub(super) fn exit(&self) -> Exit {
        if self.held.as_ref().is_some_and(HeldRemovals::waits) {
            return Exit::Held;
        }
        let waits = !self.withheld.is_empty() || !self.refused.is_empty() || self.pending > 0;
        let whole = self.problem.is_none() && self.skipped.is_empty() && !waits;
        if whole && self.last_complete.is_some() { Exit::Done } else { Exit::Partial }
    }

    /// Returns the state in a few words.
    pub(super) fn state(&self) -> String {
        let mut parts = Vec::new();
        match &self.held {
            Some(held) if held.waits() => parts.push(format!("{} held", grouped(held.here + held.on_server))),
            Some(held) => parts.push(format!("{} approved", grouped(held.approved))),
            None => {}
        }
        if self.problem.is_some() {
            parts.push("problem".to_owned());
        }
        if self.pending > 0 {
            parts.push(format!("{} pending", grouped(self.pending)));
        }
        if !self.withheld.is_empty() {
            parts.push(format!("{} not given yet", grouped(self.withheld.len() as u64)));
        }
        if !self.refused.is_empty() {
            parts.push(format!("{} refused", grouped(self.refused.len() as u64)));
        }
        if !self.skipped.is_empty() {
            parts.push(format!("{} skipped", grouped(self.skipped.len() as u64)));
        }
        match (parts.is_empty(), self.last_complete) {
            (false, _) => parts.join(", "),
            (true, Some(_)) => "in sync".to_owned(),
            (true, None) => "never complete".to_owned(),
        }
    }
}

impl AccountStatus {
    /// Returns the code: an account of which no pass is known is not in sync.
    fn exit(&self) -> Exit {
        let never = if self.mailboxes.is_empty() { Exit::Partial } else { Exit::Done };
        let failed = self.failure.as_ref().map(|failure| failure.exit);
        Exit::of_all(self.mailboxes.iter().map(MailboxStatus::exit).chain([never]).chain(failed))
    }
}

/// As many skipped messages of a mailbox are listed; `--json` has all.
const MOST_SKIPPED: usize = 10;

fn render(status: &AccountStatus, now: Moment, zone: &TimeZone, paint: Paint) -> String {
    let mut text = String::new();
    let when = |moment: Moment| format!("{} ({})", moment.ago(now), moment.exact(zone));
    let complete = match (status.last_complete, status.mailboxes.is_empty()) {
        (Some(moment), _) => format!("all mailboxes complete {}", when(moment)),
        (None, true) => paint.bad("never synced"),
        (None, false) => paint.bad("not every mailbox was complete yet"),
    };
    let under_way = if status.under_way { "; a pass is going on, or broke off" } else { "" };
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{}: {complete}{under_way}", paint.strong(&status.account));
    let _ = writeln!(text, "  {}", harmless(&status.maildir));
    if let Some(failure) = &status.failure {
        let _ = writeln!(
            text,
            "  {} {}:\n    {}",
            paint.bad("the last pass failed"),
            when(failure.at),
            harmless(&failure.text)
        );
    }
    if let Some(quiet) = &status.quiet {
        let _ = writeln!(
            text,
            "  the server is left alone until {}\n    {}",
            quiet.until.exact(zone),
            harmless(&quiet.why)
        );
    }
    if let Some(since) = status.not_connected_since {
        let _ = writeln!(text, "  the server has not opened the mailbox since {}", when(since));
    }
    if status.mailboxes.is_empty() {
        let _ = writeln!(text, "  to begin:  postkeep sync {}", status.account);
        return text;
    }
    let _ = writeln!(text, "\n  {:<28} {:>9}  {:<14}  STATE", "MAILBOX", "MESSAGES", "LAST COMPLETE");
    for mailbox in &status.mailboxes {
        let name = shortened(&harmless(&mailbox.mailbox), 28);
        let complete = mailbox.last_complete.map_or("never".to_owned(), |moment| moment.ago(now));
        let state =
            if mailbox.exit() == Exit::Done { paint.good(&mailbox.state()) } else { paint.bad(&mailbox.state()) };
        let _ = writeln!(text, "  {name:<28} {:>9}  {complete:<14}  {state}", grouped(mailbox.synced));
    }
    for mailbox in &status.mailboxes {
        text.push_str(&details(&status.account, mailbox, &when));
    }
    text
}

fn times(count: u32) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

/// Returns why a mailbox is not in sync, and what to do; empty if it is.
fn details(account: &str, mailbox: &MailboxStatus, when: &dyn Fn(Moment) -> String) -> String {
    let mut text = String::new();
    let name = MailboxName::from(mailbox.mailbox.as_str());
    if let Some(held) = &mailbox.held {
        let since = held.since.map_or(String::new(), |moment| format!("\n    since {}", when(moment)));
        for (count, side) in [(held.here, "from the maildir"), (held.on_server, "from the server")] {
            if count > 0 {
                let _ = writeln!(text, "\n  {name}: {} {side} held{since}", many(count, "removal"));
            }
        }
        if let Some(why) = &held.why {
            let _ = writeln!(text, "\n  {name}: held{since}\n    {}", harmless(why));
        }
        if held.waits() {
            text.push_str(&approve::advice(account, &name, held.removes));
        }
        if held.approved > 0 {
            let _ = writeln!(text, "\n  {name}: {} approved, for the next pass", many(held.approved, "removal"));
        }
    }
    if let Some(problem) = &mailbox.problem {
        let _ = writeln!(text, "\n  {name}: {}", harmless(problem));
    }
    if let Some(since) = mailbox.missing_since {
        let _ = writeln!(text, "\n  {name}: the server has not listed it since {}", when(since));
    }
    if !mailbox.withheld.is_empty() {
        let count = many(mailbox.withheld.len() as u64, "message");
        let _ = writeln!(text, "\n  {name}: {count} listed by the server, but not given yet");
    }
    for message in mailbox.withheld.iter().take(MOST_SKIPPED) {
        let uid = message.uid.map(|uid| format!("uid {uid}")).unwrap_or_default();
        let _ = writeln!(text, "    {uid}: asked for {}, next try due {}", times(message.tries), when(message.next));
    }
    if !mailbox.refused.is_empty() {
        let count = many(mailbox.refused.len() as u64, "change");
        let _ = writeln!(text, "\n  {name}: {count} refused by the server");
    }
    for change in mailbox.refused.iter().take(MOST_SKIPPED) {
        let uid = change.uid.map_or_else(|| "a message that is moved here".to_owned(), |uid| format!("uid {uid}"));
        let _ = writeln!(text, "    {uid}: {}", harmless(&change.reason));
        let _ = writeln!(text, "      {}", change.again.sentence(when));
    }
    if !mailbox.skipped.is_empty() {
        let _ = writeln!(text, "\n  {name}: {} skipped", many(mailbox.skipped.len() as u64, "message"));
    }
    for message in mailbox.skipped.iter().take(MOST_SKIPPED) {
        let uid = message.uid.map(|uid| format!("uid {uid}"));
        let which = uid.or_else(|| message.file.clone()).unwrap_or_default();
        let _ = writeln!(text, "    {which}: {}", harmless(&message.reason));
        if let Some(again) = &message.again {
            let _ = writeln!(text, "      {}", again.sentence(when));
        }
    }
    if mailbox.skipped.len() > MOST_SKIPPED {
        let _ = writeln!(text, "    … and {} more; --json lists all", mailbox.skipped.len() - MOST_SKIPPED);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::{NewLink, NewMailbox};
    use crate::model::Side;
    use crate::model::{Flags, SkipReason, Uid, UniqueName};

    fn now() -> Moment {
        Moment::from_seconds(1_793_620_800)
    }

    fn mailbox(name: &str) -> MailboxStatus {
        MailboxStatus {
            mailbox: name.to_owned(),
            synced: 1234,
            pending: 0,
            withheld: vec![],
            refused: vec![],
            skipped: vec![],
            held: None,
            last_complete: Some(Moment::from_seconds(1_793_620_680)),
            missing_since: None,
            problem: None,
        }
    }

    fn account(mailboxes: Vec<MailboxStatus>) -> AccountStatus {
        let last_complete = mailboxes.iter().map(|m| m.last_complete).min().flatten();
        let (account, maildir) = ("personal".to_owned(), "/home/u/Mail".to_owned());
        let (failure, quiet, not_connected_since) = (None, None, None);
        AccountStatus {
            account,
            maildir,
            under_way: false,
            failure,
            quiet,
            not_connected_since,
            last_complete,
            mailboxes,
        }
    }

    fn shown(status: &AccountStatus) -> String {
        let text = render(status, now(), &TimeZone::UTC, Paint(false));
        assert!(text.lines().all(|line| line.chars().count() <= 80), "wider than 80 columns:\n{text}");
        text
    }

    #[test]
    fn what_is_in_sync_is_short() {
        let status = account(vec![mailbox("INBOX"), mailbox("Lists/a/rather/long/name/of/a/mailbox")]);
        assert_eq!(status.exit(), Exit::Done);
        insta::assert_snapshot!(shown(&status), @r#"
    personal: all mailboxes complete 2 minutes ago (2026-11-02 11:58:00)
      /home/u/Mail

      MAILBOX                       MESSAGES  LAST COMPLETE   STATE
      INBOX                            1,234  2 minutes ago   in sync
      Lists/a/rathe…e/of/a/mailbox     1,234  2 minutes ago   in sync
    "#);
    }

    #[test]
    fn what_was_never_synced_says_how_to_begin() {
        let status = account(vec![]);
        assert_eq!(status.exit(), Exit::Partial);
        insta::assert_snapshot!(shown(&status), @r#"
    personal: never synced
      /home/u/Mail
      to begin:  postkeep sync personal
    "#);
    }

    #[test]
    fn what_the_server_does_not_do_is_shown() {
        let at = Moment::from_seconds;
        let withheld = vec![WithheldMessage { uid: Some(7), tries: 2, next: at(1_793_621_400) }];
        let inbox = MailboxStatus { withheld, ..mailbox("INBOX") };
        let quiet = Some(Quiet { until: at(1_793_621_100), why: "it answered: Request is throttled.".to_owned() });
        let status = AccountStatus { quiet, not_connected_since: Some(at(1_793_617_200)), ..account(vec![inbox]) };
        assert_eq!(status.exit(), Exit::Partial);
        let text = shown(&status);
        for words in [
            "left alone until 2026-11-02 12:05:00",
            "Request is throttled",
            "not opened the mailbox since",
            "1 not given yet",
            "uid 7: asked for 2 times",
        ] {
            assert!(text.contains(words), "{words} is not in:\n{text}");
        }
    }

    #[test]
    fn what_is_held_or_skipped_says_why_and_what_to_do() {
        let since = Some(Moment::from_seconds(1_793_534_400));
        let held = HeldRemovals { here: 120, on_server: 0, approved: 0, why: None, since, removes: true };
        let skipped = (1..=12).map(|uid| SkippedMessage {
            uid: Some(uid),
            file: None,
            reason: "too large".to_owned(),
            again: None,
        });
        let status = account(vec![
            MailboxStatus { held: Some(held), ..mailbox("INBOX") },
            MailboxStatus { skipped: skipped.collect(), pending: 3, last_complete: None, ..mailbox("Big") },
            MailboxStatus { problem: Some("the disk is full".to_owned()), missing_since: since, ..mailbox("Odd") },
        ]);
        assert_eq!(status.exit(), Exit::Held);
        insta::assert_snapshot!(shown(&status), @r#"
    personal: not every mailbox was complete yet
      /home/u/Mail

      MAILBOX                       MESSAGES  LAST COMPLETE   STATE
      INBOX                            1,234  2 minutes ago   120 held
      Big                              1,234  never           3 pending, 12 skipped
      Odd                              1,234  2 minutes ago   problem

      INBOX: 120 removals from the maildir held
        since 24 hours ago (2026-11-01 12:00:00)
        to let them go:    postkeep approve personal --mailbox INBOX
        to put them back:  postkeep approve personal --mailbox INBOX --undo

      Big: 12 messages skipped
        uid 1: too large
        uid 2: too large
        uid 3: too large
        uid 4: too large
        uid 5: too large
        uid 6: too large
        uid 7: too large
        uid 8: too large
        uid 9: too large
        uid 10: too large
        … and 2 more; --json lists all

      Odd: the disk is full

      Odd: the server has not listed it since 24 hours ago (2026-11-01 12:00:00)
    "#);
    }

    #[test]
    fn a_pass_that_failed_as_a_whole_says_why() {
        let failure = |exit: Exit| FailedPass {
            at: Moment::from_seconds(1_793_617_200),
            text: "the server imap.example.org cannot be reached".to_owned(),
            exit_code: exit.code(),
            exit,
        };
        let status = AccountStatus { failure: Some(failure(Exit::Unreachable)), ..account(vec![mailbox("INBOX")]) };
        assert_eq!(status.exit(), Exit::Unreachable);
        let never = AccountStatus { failure: Some(failure(Exit::SignIn)), ..account(vec![]) };
        assert_eq!(never.exit(), Exit::SignIn);
        insta::assert_snapshot!(shown(&status), @r#"
    personal: all mailboxes complete 2 minutes ago (2026-11-02 11:58:00)
      /home/u/Mail
      the last pass failed 1 hour ago (2026-11-02 11:00:00):
        the server imap.example.org cannot be reached

      MAILBOX                       MESSAGES  LAST COMPLETE   STATE
      INBOX                            1,234  2 minutes ago   in sync
    "#);
    }

    #[tokio::test]
    async fn the_database_is_read() {
        let db = Db::memory().unwrap();
        let all = db
            .commit(|tx| {
                let new = |name: &str| NewMailbox { name: name.into(), raw: None, path: None };
                tx.insert_mailbox(&new("Archive"))?;
                let inbox = tx.insert_mailbox(&new("INBOX"))?;
                let link = |state| NewLink { state, content: None, internal_date: None, inode: None };
                let name = |n: u32| UniqueName::new(format!("{n}.a").as_bytes());
                let synced =
                    |n: u32| LinkState::Synced { uid: Uid::new(n.into()).unwrap(), name: name(n), flags: Flags::new() };
                let mut ids = Vec::new();
                for n in 1..=3 {
                    ids.push(tx.insert_link(inbox, &link(synced(n)))?);
                }
                let reason = SkipReason::TooLarge(300);
                tx.insert_link(
                    inbox,
                    &link(LinkState::Skipped { uid: Some(Uid::new(9).unwrap()), name: None, reason }),
                )?;
                let (uid, flags) = (Uid::new(10).unwrap(), Flags::new());
                tx.insert_link(inbox, &link(LinkState::Downloading { uid, name: name(10), flags }))?;
                tx.hold(inbox, &[(ids[0], Side::Local), (ids[1], Side::Remote)])?;
                gather_mailboxes(tx)
            })
            .await
            .unwrap();
        assert_eq!(all.iter().map(|m| m.mailbox.as_str()).collect::<Vec<_>>(), ["INBOX", "Archive"]);
        let inbox = &all[0];
        assert_eq!((inbox.synced, inbox.pending), (3, 1));
        assert_eq!(inbox.skipped[0].reason, "larger than max_message_size (300 bytes)");
        let held = inbox.held.as_ref().unwrap();
        assert_eq!((held.here, held.on_server, held.approved), (1, 1, 0));
        assert!(held.since.is_some());
        assert_eq!((inbox.exit(), all[1].exit()), (Exit::Held, Exit::Partial));
    }
}
