//! `postkeep approve`: lets a held mass deletion go, or puts back what it would have removed.

use std::fmt::Write as _;

use super::output::{self, many};
use super::{Exit, Failure};
use crate::config::{Config, prepare_state_dir};
use crate::engine;
use crate::engine::report::Approve;
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
    let approved = engine::approve(account, &what).await?;
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
    } else {
        let _ = writeln!(text, "Next: postkeep sync {}", account.name);
    }
    output::print(&text)?;
    Ok(Exit::Done)
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
