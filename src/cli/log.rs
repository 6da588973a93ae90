//! `postkeep log`: what was done, when and why.

use std::fmt::Write as _;

use jiff::tz::TimeZone;
use serde::Serialize;

use super::output::{self, harmless};
use super::time::{self, Moment};
use super::{Exit, Failure};
use crate::config::Config;
use crate::db::{Db, Entry};
use crate::model::MailboxName;

/// Show what was done, when and why
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The account
    #[arg(value_name = "ACCOUNT")]
    account: String,
    /// Only what was done in this mailbox
    #[arg(long, value_name = "NAME")]
    mailbox: Option<String>,
    /// Only what was done since then: 2h, 3d, 2026-11-01, 2026-11-01T08:00:00Z
    #[arg(long, value_name = "WHEN", value_parser = since)]
    since: Option<Moment>,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

fn since(when: &str) -> Result<Moment, String> {
    time::parse(when, Moment::now(), &TimeZone::system())
}

/// Something that was done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct LogEntry {
    time: Moment,
    mailbox: String,
    kind: String,
    op: String,
    cause: String,
    /// Where the removed file is now.
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<String>,
}

impl From<Entry> for LogEntry {
    fn from(entry: Entry) -> Self {
        let Entry { at, mailbox, op, cause, kind, kept } = entry;
        Self { time: Moment::from_millis(at), mailbox: mailbox.as_str().to_owned(), kind, op, cause, kept }
    }
}

/// Runs the command.
pub(super) async fn run(args: &Args, config: &Config) -> Result<Exit, Failure> {
    let account = super::account(config, &args.account)?;
    let file = config.daemon.database(&account.name);
    if !file.exists() {
        super::output::complain(&format!("{}: nothing was done yet", account.name));
        return Ok(Exit::Done);
    }
    let mailbox = args.mailbox.as_deref().map(MailboxName::from);
    let since = args.since.map(|moment| moment.0.as_millisecond());
    let entries = Db::open(&file)?.read(move |tx| tx.entries(mailbox.as_ref(), since)).await?;
    let zone = TimeZone::system();
    let mut text = String::new();
    for entry in entries.into_iter().map(LogEntry::from) {
        text.push_str(&if args.json { serde_json::to_string(&entry)? + "\n" } else { render(&entry, &zone) });
    }
    output::print(&text)?;
    Ok(Exit::Done)
}

fn render(entry: &LogEntry, zone: &TimeZone) -> String {
    let LogEntry { time, mailbox, op, cause, kept, kind: _ } = entry;
    let mut text = format!("{}  {}: {}", time.exact(zone), harmless(mailbox), harmless(op));
    // Writing to a String cannot fail.
    if !cause.is_empty() {
        let _ = write!(text, " ({})", harmless(cause));
    }
    if let Some(kept) = kept {
        let _ = write!(text, "\n                     kept as {}", harmless(kept));
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_line() {
        let entry = LogEntry {
            time: Moment::from_millis(1_793_620_800_123),
            mailbox: "Lists/rust".to_owned(),
            kind: "remove".to_owned(),
            op: "remove 17".to_owned(),
            cause: "gone from the server\n".to_owned(),
            kept: Some("/state/graveyard/a/2026-11-02/Lists/rust/1.a".to_owned()),
        };
        insta::assert_snapshot!(render(&entry, &TimeZone::UTC), @r#"
    2026-11-02 12:00:00  Lists/rust: remove 17 (gone from the server�)
                         kept as /state/graveyard/a/2026-11-02/Lists/rust/1.a
    "#);
        let json = r#"{"time":"2026-11-02T12:00:00.123Z","mailbox":"Lists/rust","kind":"remove","op":"remove 17","#;
        assert!(serde_json::to_string(&entry).unwrap().starts_with(json));
    }
}
