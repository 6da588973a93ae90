//! `postkeep approve`: lets a held mass deletion go, or puts back what it would have removed.

use std::fmt::Write as _;

use super::output::{self, many};
use super::{Exit, Failure};
use crate::config::{Config, prepare_state_dir};
use crate::daemon::{Answer, Client, Request};
use crate::engine;
use crate::engine::report::{Approve, Approved};
use crate::model::MailboxName;

/// Let a held mass deletion go, or put back what it would have removed
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The account
    #[arg(value_name = "ACCOUNT")]
    account: String,
    /// Only what is held in this mailbox
    #[arg(long, value_name = "NAME")]
    mailbox: Option<String>,
    /// Put back what would have been removed
    #[arg(long)]
    undo: bool,
}

/// Runs the command.
pub(super) async fn run(args: &Args, config: &Config) -> Result<Exit, Failure> {
    let account = super::account(config, &args.account)?;
    prepare_state_dir(&config.daemon.state_dir)?;
    let what = Approve {
        mailbox: args.mailbox.as_deref().map(MailboxName::from),
        undo: args.undo,
        state_dir: config.daemon.state_dir.clone(),
    };
    let asked = ask(&account.name, config, &what).await?;
    let by_daemon = asked.is_some();
    let approved = match asked {
        Some(approved) => approved,
        None => engine::approve(account, &what).await?,
    };
    let mut text = String::new();
    for one in &approved {
        if one.removals == 0 {
            let _ = writeln!(text, "{}: {}: goes on with the next pass", account.name, one.mailbox);
            continue;
        }
        let fate = if args.undo { "will be put back" } else { "will be carried out" };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{}: {}: {} {fate} by the next pass",
            account.name,
            one.mailbox,
            many(one.removals, "removal")
        );
    }
    if approved.is_empty() {
        let place = what.mailbox.map_or_else(String::new, |name| format!(" in {name}"));
        text = format!("{}: nothing is held{place}\n", account.name);
    } else if !by_daemon {
        let _ = writeln!(text, "Next: postkeep sync {}", account.name);
    }
    output::print(&text)?;
    Ok(Exit::Done)
}

/// Lets the daemon do it, if one runs and has the account.
async fn ask(account: &str, config: &Config, what: &Approve) -> Result<Option<Vec<Approved>>, Failure> {
    let failed = |text: String| Failure { exit: Exit::Partial, text };
    let silent = |error: std::io::Error| failed(format!("the daemon does not answer: {error}"));
    let Some(mut client) = Client::connect(&config.daemon.socket).await.map_err(silent)? else { return Ok(None) };
    let mailbox = what.mailbox.as_ref().map(|name| name.as_str().to_owned());
    let request = Request::Approve { account: account.to_owned(), mailbox, undo: what.undo };
    match client.ask(&request).await.map_err(silent)? {
        Answer::Approved { mailboxes } => Ok(Some(mailboxes)),
        Answer::NotMine => Ok(None),
        Answer::Failed { text } => Err(failed(text)),
        Answer::Status(_) | Answer::Report(_) => Err(silent(std::io::ErrorKind::InvalidData.into())),
    }
}

/// Returns the lines that say how what is held in a mailbox is let go; a mailbox that is held without `removals` goes on.
pub(super) fn advice(account: &str, mailbox: &MailboxName, removals: bool) -> String {
    let name = quoted(&mailbox.to_string());
    if !removals {
        return format!("    to let it go on:   postkeep approve {account} --mailbox {name}\n");
    }
    format!(
        "    to let them go:    postkeep approve {account} --mailbox {name}\n    \
         to put them back:  postkeep approve {account} --mailbox {name} --undo\n"
    )
}

/// Returns the word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+,:@".contains(c);
    if word.chars().all(plain) && !word.starts_with('-') {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_can_be_pasted_into_a_shell() {
        let rows =
            [("INBOX", "INBOX"), ("Lists/rust", "Lists/rust"), ("Sent Items", "'Sent Items'"), ("it's", "'it'\\''s'")];
        for (name, word) in rows {
            assert_eq!(quoted(name), word);
        }
        let advice = advice("a", &"Sent Items".into(), true);
        assert!(advice.contains("postkeep approve a --mailbox 'Sent Items' --undo\n"), "{advice}");
    }
}
