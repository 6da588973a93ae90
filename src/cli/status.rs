//! `postkeep status`: shows how things stand, and why.

use std::fmt::Write as _;

use jiff::tz::TimeZone;
use serde::Serialize;

use super::output::{self, Paint, grouped, harmless, many, shortened};
use super::standing::{AccountStatus, Again, MailboxStatus, gather};
use super::time::Moment;
use super::{Exit, Failure, approve, live};
use crate::config::Config;
use crate::daemon::Live;
use crate::model::MailboxName;

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

/// Returns the state in a few words.
pub(super) fn state(mailbox: &MailboxStatus) -> String {
    let mut parts = Vec::new();
    match &mailbox.held {
        Some(held) if held.waits() => parts.push(format!("{} held", grouped(held.here + held.on_server))),
        Some(held) => parts.push(format!("{} approved", grouped(held.approved))),
        None => {}
    }
    if mailbox.problem.is_some() {
        parts.push("problem".to_owned());
    }
    if mailbox.pending > 0 {
        parts.push(format!("{} pending", grouped(mailbox.pending)));
    }
    if !mailbox.withheld.is_empty() {
        parts.push(format!("{} not given yet", grouped(mailbox.withheld.len() as u64)));
    }
    if !mailbox.refused.is_empty() {
        parts.push(format!("{} refused", grouped(mailbox.refused.len() as u64)));
    }
    if !mailbox.skipped.is_empty() {
        parts.push(format!("{} skipped", grouped(mailbox.skipped.len() as u64)));
    }
    match (parts.is_empty(), mailbox.last_complete) {
        (false, _) => parts.join(", "),
        (true, Some(_)) => "in sync".to_owned(),
        (true, None) => "never complete".to_owned(),
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
        let state = if mailbox.exit() == Exit::Done { paint.good(&state(mailbox)) } else { paint.bad(&state(mailbox)) };
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
        let _ = writeln!(text, "      {}", again(&change.again, when));
    }
    if !mailbox.skipped.is_empty() {
        let _ = writeln!(text, "\n  {name}: {} skipped", many(mailbox.skipped.len() as u64, "message"));
    }
    for message in mailbox.skipped.iter().take(MOST_SKIPPED) {
        let uid = message.uid.map(|uid| format!("uid {uid}"));
        let which = uid.or_else(|| message.file.clone()).unwrap_or_default();
        let _ = writeln!(text, "    {which}: {}", harmless(&message.reason));
        if let Some(tried) = &message.again {
            let _ = writeln!(text, "      {}", again(tried, when));
        }
    }
    if mailbox.skipped.len() > MOST_SKIPPED {
        let _ = writeln!(text, "    … and {} more; --json lists all", mailbox.skipped.len() - MOST_SKIPPED);
    }
    text
}

/// Says how often something was tried, and when it is again.
fn again(again: &Again, when: &dyn Fn(Moment) -> String) -> String {
    let next =
        again.next.map_or_else(|| "with the next postkeep sync".to_owned(), |next| format!("due {}", when(next)));
    format!("tried {}, next try {next}", times(again.tries))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::standing::{FailedPass, HeldRemovals, Quiet, SkippedMessage, WithheldMessage};

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
}
