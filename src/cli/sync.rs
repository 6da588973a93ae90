//! `postkeep sync`: one complete pass.

use std::fmt::Write as _;

use futures_util::future::join_all;
use serde::Serialize;

use super::output::{self, Paint, harmless, many, size};
use super::progress::{self, Show};
use super::{Exit, Failure};
use crate::config::{Account, Config, Filter, Pattern, prepare_state_dir};
use crate::daemon::{Answer, Client, Request};
use crate::engine;
use crate::engine::report::{Counts, MailboxReport, MailboxState, Options, Outcome, Pace, Report};

/// Make one complete pass, then exit
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Accounts [default: all]
    #[arg(value_name = "ACCOUNT")]
    accounts: Vec<String>,
    /// Only mailboxes of which the last pattern that matches is not negated by a !; * stops at /, ** does not
    #[arg(long = "mailbox", value_name = "GLOB", value_parser = pattern)]
    mailboxes: Vec<Pattern>,
    /// Print each operation and why, and change nothing on either side
    #[arg(long)]
    dry_run: bool,
    /// List everything instead of only what changed
    #[arg(long)]
    full: bool,
    /// Print one JSON document
    #[arg(long)]
    pub(super) json: bool,
}

fn pattern(text: &str) -> Result<Pattern, String> {
    Pattern::new(text).ok_or_else(|| "an empty pattern matches nothing".to_owned())
}

/// What `--json` prints.
#[derive(Serialize)]
struct Document<'a> {
    accounts: &'a [Report],
    exit_code: u8,
}

/// Runs the command.
pub(super) async fn run(args: &Args, config: &Config, show: &Show, paint: Paint) -> Result<Exit, Failure> {
    let chosen = chosen(args, config)?;
    prepare_state_dir(&config.daemon.state_dir)?;
    let options = Options {
        mailboxes: Filter::new(args.mailboxes.clone()),
        dry_run: args.dry_run,
        full: args.full,
        pace: Pace::Thorough,
        state_dir: config.daemon.state_dir.clone(),
        stop: super::signals::stop_on_signal().map_err(super::no_signals)?,
    };
    let reports = join_all(chosen.into_iter().map(|account| pass(account, config, &options, show))).await;
    let exit = Exit::of_all(reports.iter().map(|report| report.outcome.into()));
    let text = if args.json {
        let document = Document { accounts: &reports, exit_code: exit.code() };
        serde_json::to_string_pretty(&document)? + "\n"
    } else {
        reports.iter().map(|report| render(report, args.dry_run, paint)).collect()
    };
    output::print(&text)?;
    Ok(exit)
}

/// Returns each account that is asked for, once, in the order of the configuration.
fn chosen<'a>(args: &Args, config: &'a Config) -> Result<Vec<&'a Account>, Failure> {
    for name in &args.accounts {
        super::account(config, name)?;
    }
    let asked = |account: &&Account| args.accounts.is_empty() || args.accounts.contains(&account.name);
    Ok(config.accounts.iter().filter(asked).collect())
}

async fn pass(account: &Account, config: &Config, options: &Options, show: &Show) -> Report {
    let mut stop = options.stop.clone();
    let asked = tokio::select! {
        asked = ask(account, config, options) => asked,
        // The daemon goes on with what it was asked for.
        _ = stop.wait_for(|stop| *stop) => return Report::failed(
            &account.name,
            Outcome::Stopped,
            "no longer waits for the daemon, which goes on".to_owned(),
        ),
    };
    if let Some(report) = asked {
        return report;
    }
    let progress = progress::listener(show, &account.name);
    match engine::sync(account, options, &progress).await {
        Ok(report) => report,
        Err(error) => Report::failed(&account.name, error.outcome(), error.to_string()),
    }
}

/// Lets the daemon make the pass, if one runs and has the account.
async fn ask(account: &Account, config: &Config, options: &Options) -> Option<Report> {
    let failed = |error: std::io::Error| {
        Report::failed(&account.name, Outcome::Partial, format!("the daemon does not answer: {error}"))
    };
    let mut client = match Client::connect(&config.daemon.socket).await {
        Ok(client) => client?,
        Err(error) => return Some(failed(error)),
    };
    let request = Request::Sync {
        account: account.name.clone(),
        mailboxes: options.mailboxes.patterns().iter().map(ToString::to_string).collect(),
        full: options.full,
        dry_run: options.dry_run,
    };
    match client.ask(&request).await {
        Ok(Answer::Report(report)) => Some(report),
        Ok(Answer::NotMine) => None,
        Ok(Answer::Failed { text }) => Some(Report::failed(&account.name, Outcome::Partial, text)),
        Ok(Answer::Status(_) | Answer::Approved { .. }) => Some(failed(std::io::ErrorKind::InvalidData.into())),
        Err(error) => Some(failed(error)),
    }
}

fn render(report: &Report, dry_run: bool, paint: Paint) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    for op in &report.planned {
        let _ = writeln!(text, "{}: {}: {} ({})", report.account, op.mailbox, harmless(&op.text), harmless(&op.why));
    }
    let outcome = match (report.outcome, dry_run) {
        (Outcome::InSync, true) if report.planned.is_empty() => paint.good("in sync; nothing would be done"),
        (Outcome::InSync, true) => format!("{} would be done; nothing was", many(report.planned.len() as u64, "op")),
        (Outcome::InSync, false) => paint.good("in sync"),
        (Outcome::Partial, _) => paint.bad("not everything could be done"),
        (Outcome::Stopped, _) => paint.bad("stopped before the end"),
        (Outcome::SignIn, _) => paint.bad("sign-in needed"),
        (Outcome::Held, _) => paint.bad("something is held"),
        (Outcome::Unreachable, _) => paint.bad("the server cannot be reached now"),
        (Outcome::Busy, _) => paint.bad("another postkeep is at work"),
    };
    let done = counted(&report.total());
    let done = if done.is_empty() { done } else { format!("; {done}") };
    let _ = writeln!(text, "{}: {outcome}{done}", paint.strong(&report.account));
    for mailbox in &report.mailboxes {
        text.push_str(&render_mailbox(&report.account, mailbox));
    }
    for problem in &report.problems {
        let scope = if problem.scope.is_empty() { String::new() } else { format!("{}: ", harmless(&problem.scope)) };
        let _ = writeln!(text, "  {scope}{}", harmless(&problem.text));
        if let Some(advice) = &problem.advice {
            let _ = writeln!(text, "    {}", harmless(advice));
        }
    }
    text
}

fn render_mailbox(account: &str, report: &MailboxReport) -> String {
    let mut text = String::new();
    let name = report.mailbox.to_string();
    let done = counted(&report.counts);
    if !done.is_empty() {
        let _ = writeln!(text, "  {name}: {done}");
    }
    for held in &report.held {
        let what = if held.removals == 0 { String::new() } else { many(held.removals, "removal") + " " };
        let _ = writeln!(text, "  {name}: {what}held: {}", harmless(&held.why));
        text.push_str(&super::approve::advice(account, &report.mailbox, held.removals > 0));
    }
    match (&report.problem, report.state) {
        (Some(problem), _) => {
            let _ = writeln!(text, "  {name}: {}", harmless(problem));
        }
        (None, MailboxState::Failed) => {
            let _ = writeln!(text, "  {name}: failed");
        }
        (None, MailboxState::Partial | MailboxState::Held | MailboxState::InSync | MailboxState::Unchanged) => {}
    }
    text
}

/// Returns what was done, in words; empty if nothing was.
fn counted(counts: &Counts) -> String {
    let bytes = |n| if n == 0 { String::new() } else { format!(" ({})", size(n)) };
    let flags = counts.flags_local + counts.flags_remote;
    let parts = [
        (counts.downloaded, format!("downloaded{}", bytes(counts.downloaded_bytes))),
        (counts.uploaded, format!("uploaded{}", bytes(counts.uploaded_bytes))),
        (flags, "with changed flags".to_owned()),
        (counts.moved, "moved".to_owned()),
        (counts.removed, "removed here".to_owned()),
        (counts.expunged, "removed on the server".to_owned()),
        (counts.adopted, "completed".to_owned()),
        (counts.matched, "matched by content".to_owned()),
        (counts.skipped, "skipped".to_owned()),
    ];
    let words = parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{} {what}", output::grouped(*n)));
    words.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::report::{Held, PlannedOp, Problem};

    fn report() -> Report {
        let inbox = MailboxReport {
            mailbox: "INBOX".into(),
            state: MailboxState::InSync,
            counts: Counts { downloaded: 1200, downloaded_bytes: 3_400_000, flags_local: 1, ..Counts::default() },
            held: vec![],
            problem: None,
        };
        let lists = MailboxReport {
            mailbox: "Lists/rust".into(),
            state: MailboxState::Held,
            counts: Counts { skipped: 1, ..Counts::default() },
            held: vec![Held { removals: 120, why: "the pass would remove 120 of 130 messages".to_owned() }],
            problem: Some("the server said \u{1b}[31mno".to_owned()),
        };
        Report {
            account: "personal".to_owned(),
            outcome: Outcome::Held,
            mailboxes: vec![inbox, lists],
            problems: vec![Problem {
                scope: "Lists/rust 17".to_owned(),
                text: "too large".to_owned(),
                advice: Some("raise max_message_size".to_owned()),
            }],
            planned: vec![],
        }
    }

    #[test]
    fn a_report_for_people() {
        insta::assert_snapshot!(render(&report(), false, Paint(false)), @r#"
    personal: something is held; 1,200 downloaded (3.4 MB), 1 with changed flags, 1 skipped
      INBOX: 1,200 downloaded (3.4 MB), 1 with changed flags
      Lists/rust: 1 skipped
      Lists/rust: 120 removals held: the pass would remove 120 of 130 messages
        to let them go:    postkeep approve personal --mailbox Lists/rust
        to put them back:  postkeep approve personal --mailbox Lists/rust --undo
      Lists/rust: the server said �[31mno
      Lists/rust 17: too large
        raise max_message_size
    "#);
        let quiet = Report { mailboxes: vec![], problems: vec![], outcome: Outcome::InSync, ..report() };
        assert_eq!(render(&quiet, false, Paint(false)), "personal: in sync\n");
        assert_eq!(render(&quiet, true, Paint(false)), "personal: in sync; nothing would be done\n");
    }

    #[test]
    fn a_dry_run_has_a_line_for_each_op() {
        let op = |text: &str| PlannedOp { mailbox: "INBOX".into(), text: text.to_owned(), why: "new there".to_owned() };
        let planned = vec![op("download 1"), op("download 2")];
        let report = Report { mailboxes: vec![], problems: vec![], outcome: Outcome::InSync, planned, ..report() };
        insta::assert_snapshot!(render(&report, true, Paint(false)), @r#"
    personal: INBOX: download 1 (new there)
    personal: INBOX: download 2 (new there)
    personal: 2 ops would be done; nothing was
    "#);
    }

    #[test]
    fn a_report_for_programs() {
        let json = serde_json::to_value(Document { accounts: &[report()], exit_code: 4 }).unwrap();
        let account = &json["accounts"][0];
        assert_eq!((&json["exit_code"], &account["outcome"]), (&4.into(), &"held".into()));
        assert_eq!(account["mailboxes"][0]["counts"]["downloaded"], 1200);
        assert_eq!(account["mailboxes"][1]["held"][0]["removals"], 120);
        assert_eq!(account["mailboxes"][1]["state"], "held");
    }
}
