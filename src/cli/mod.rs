//! The command line: one file per command, which reads its arguments, asks the engine or the database, and renders.

mod approve;
mod check;
mod demo;
mod exit;
mod findings;
mod init;
mod live;
mod log;
mod login;
pub mod output;
mod progress;
mod run;
mod service;
mod signals;
mod standing;
mod status;
mod sync;
mod time;

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use indicatif::MultiProgress;
use tracing_subscriber::EnvFilter;

use crate::config::{self, Account, Config};
use crate::{db, engine};

pub use exit::Exit;

/// Keeps the mailboxes of an IMAP account and local Maildirs the same, both ways, and never loses a mail.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, propagate_version = true, after_help = AFTER_HELP)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Exit codes:
  0  in sync
  1  something could not be done
  2  wrong usage or configuration
  3  sign-in needed
  4  something is held
  5  a server cannot be reached
  6  another postkeep is at work
Of several accounts the one that most needs you decides: 2, 3, 4, 1, 6, 5, 0.";

/// What holds for every command.
#[derive(Debug, Args)]
pub struct Global {
    /// Configuration [default: $XDG_CONFIG_HOME/postkeep/config.toml, else ~/.config/postkeep/config.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Say more on standard error (-vv: much more)
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,
    /// Say nothing on standard error but errors
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Which log lines to show, such as "warn,postkeep::imap=debug"; in place of -v and -q
    #[arg(long, global = true, value_name = "FILTER", value_parser = log_filter)]
    pub log: Option<String>,
    /// When to use colours
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: ColorWhen,
}

/// When to use colours.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum ColorWhen {
    /// On a terminal, unless $NO_COLOR is set
    Auto,
    /// Everywhere
    Always,
    /// Nowhere
    Never,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Args),
    Init(init::Args),
    Login(login::Args),
    Sync(sync::Args),
    Status(status::Args),
    Check(check::Args),
    Approve(approve::Args),
    Log(log::Args),
    Run(run::Args),
    Service(service::Args),
}

fn log_filter(text: &str) -> Result<String, String> {
    EnvFilter::try_new(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

impl Cli {
    /// Returns which log lines to show, in the syntax of `tracing_subscriber`. The daemon, whose log is read afterwards, tells
    /// what it does also if it is not asked to.
    #[must_use]
    pub fn log_filter(&self) -> &str {
        let verbose = self.global.verbose.saturating_add(u8::from(self.is_daemon()));
        match (&self.global.log, self.global.quiet, verbose) {
            (Some(filter), _, _) => filter,
            (None, true, _) => "error",
            (None, false, 0) => "warn",
            (None, false, 1) => "warn,postkeep=info",
            (None, false, _) => "warn,postkeep=debug",
        }
    }

    /// Tells whether this is the daemon, which is to be small.
    #[must_use]
    pub fn is_daemon(&self) -> bool {
        matches!(self.command, Command::Run(_))
    }
}

/// Why a command ends early: what to say, and how to end.
#[derive(Debug)]
pub struct Failure {
    /// How the program ends.
    pub exit: Exit,
    /// What to say.
    pub text: String,
}

impl Failure {
    fn usage(text: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, text: text.into() }
    }
}

impl From<config::Error> for Failure {
    fn from(error: config::Error) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<config::StateDirError> for Failure {
    fn from(error: config::StateDirError) -> Self {
        Self::usage(error.to_string())
    }
}

impl From<engine::Error> for Failure {
    fn from(error: engine::Error) -> Self {
        Self { exit: error.outcome().into(), text: error.to_string() }
    }
}

impl From<db::Error> for Failure {
    fn from(error: db::Error) -> Self {
        Self { exit: Exit::Partial, text: error.to_string() }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self { exit: Exit::Partial, text: format!("cannot write to standard output: {error}") }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self { exit: Exit::Partial, text: format!("cannot write JSON: {error}") }
    }
}

/// Runs a command; bars are drawn on `bars`.
///
/// # Errors
/// [`Failure`], which is still to be said.
pub async fn run(cli: Cli, bars: MultiProgress) -> Result<Exit, Failure> {
    let file = cli.global.config;
    let load = || Config::load(file.as_deref());
    let paint = output::Paint(output::wants_color(cli.global.color, &io::stdout()));
    match cli.command {
        Command::Demo(args) => demo::run(&args, paint, bars).await,
        Command::Init(args) => init::run(&args, file.as_deref()).await,
        Command::Sync(args) => {
            let show = match (cli.global.quiet || args.json, io::stderr().is_terminal()) {
                (true, _) => progress::Show::Nothing,
                (false, true) => progress::Show::Bars(bars),
                (false, false) => progress::Show::Lines,
            };
            sync::run(&args, &load()?, &show, paint).await
        }
        Command::Login(args) => login::run(&args, &load()?).await,
        Command::Status(args) => status::run(&args, &load()?, paint).await,
        Command::Check(args) => check::run(&args, file.as_deref(), paint).await,
        Command::Approve(args) => approve::run(&args, &load()?).await,
        Command::Log(args) => log::run(&args, &load()?).await,
        Command::Service(args) => service::run(&args, file.as_deref()),
        Command::Run(run::Args {}) => run::run(load()?, file).await,
    }
}

fn no_signals(error: io::Error) -> Failure {
    Failure { exit: Exit::Partial, text: format!("cannot listen for signals: {error}") }
}

/// Returns the account of that name.
fn account<'a>(config: &'a Config, name: &str) -> Result<&'a Account, Failure> {
    let names = || config.accounts.iter().map(|account| account.name.as_str());
    config.account(name).ok_or_else(|| {
        Failure::usage(match config::nearest(name, names()) {
            Some(near) => format!("there is no account \"{name}\" in the configuration; did you mean \"{near}\"?"),
            None => {
                let names = names().collect::<Vec<_>>().join(", ");
                format!("there is no account \"{name}\" in the configuration; there are: {names}")
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("postkeep").chain(line.split_whitespace()))
    }

    #[test]
    fn the_command_line_makes_sense() {
        Cli::command().debug_assert();
    }

    #[test]
    fn commands_are_understood() {
        let lines = [
            "demo",
            "demo --dir d --once",
            "sync",
            "sync a b --mailbox INBOX --mailbox Lists/** --dry-run --full --json",
            "status",
            "status a --json",
            "check",
            "check a --offline --json",
            "init",
            "init --device",
            "login a",
            "login a --no-browser",
            "login --device a",
            "run",
            "status --watch",
            "service install",
            "service status",
            "approve a",
            "approve a --mailbox INBOX --undo",
            "log a --mailbox INBOX --since 2h --json",
            "--config /c.toml -vv --color never sync",
            "sync -q --log warn,postkeep=trace --color always",
        ];
        for line in lines {
            assert!(parse(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn wrong_usage_is_told_as_such() {
        let rows = [
            ("", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
            ("snyc", ErrorKind::InvalidSubcommand),
            ("sync --mailbx x", ErrorKind::UnknownArgument),
            ("sync --mailbox !", ErrorKind::ValueValidation),
            ("status a b", ErrorKind::UnknownArgument),
            ("approve", ErrorKind::MissingRequiredArgument),
            ("login", ErrorKind::MissingRequiredArgument),
            ("login a b", ErrorKind::UnknownArgument),
            ("log", ErrorKind::MissingRequiredArgument),
            ("log a --since yesterday", ErrorKind::ValueValidation),
            ("--color blue sync", ErrorKind::InvalidValue),
            ("--log a=b=c sync", ErrorKind::ValueValidation),
            ("-q -v sync", ErrorKind::ArgumentConflict),
        ];
        for (line, kind) in rows {
            assert_eq!(parse(line).unwrap_err().kind(), kind, "{line}");
        }
    }

    #[test]
    fn how_much_is_said() {
        let rows = [
            ("sync", "warn"),
            ("sync -q", "error"),
            ("sync -v", "warn,postkeep=info"),
            ("sync -vvv", "warn,postkeep=debug"),
            ("sync -v --log info", "info"),
            ("run", "warn,postkeep=info"),
            ("run -q", "error"),
            ("run -v", "warn,postkeep=debug"),
        ];
        for (line, filter) in rows {
            assert_eq!(parse(line).unwrap().log_filter(), filter, "{line}");
        }
    }
}
