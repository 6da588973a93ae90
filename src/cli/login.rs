//! `postkeep login`: signs in with OAuth 2.0, by a browser on this machine or elsewhere.

use std::process::Stdio;
use std::time::Duration;

use tokio::sync::watch;

use super::output::{self, harmless};
use super::{Exit, Failure};
use crate::auth::{DevicePrompt, Login, SignedIn, TokenError};
use crate::config::{Auth, Config, prepare_state_dir};

/// Signing in may take a new password and a code from a telephone.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// Sign in with a browser (OAuth 2.0) and keep the sign-in
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The account
    #[arg(value_name = "ACCOUNT")]
    account: String,
    #[command(flatten)]
    how: How,
}

/// Where the browser is.
#[derive(Debug, clap::Args)]
pub(super) struct How {
    /// Sign in with a browser on any other machine, by a code to type in there
    #[arg(long)]
    device: bool,
    /// Only print the address; do not open a browser
    #[arg(long)]
    no_browser: bool,
}

/// Runs the command.
pub(super) async fn run(args: &Args, config: &Config) -> Result<Exit, Failure> {
    let account = super::account(config, &args.account)?;
    let name = &account.name;
    let Auth::OAuth2(oauth) = &account.auth else {
        let text = format!(
            "account {name} signs in with a password, which is in the configuration; there is nothing to do (auth = \"oauth2\" \
             would change that)"
        );
        return Err(Failure::usage(text));
    };
    prepare_state_dir(&config.daemon.state_dir)?;
    let mut stop = super::signals::stop_on_signal().map_err(super::no_signals)?;
    let login = Login::new(account, oauth, &config.daemon.state_dir)?;
    let signed_in = sign_in(&login, name, &format!("postkeep login {name}"), &args.how, &mut stop).await?;
    output::print(&(done_text(name, &signed_in) + &format!("Next: postkeep sync {name}\n")))?;
    Ok(Exit::Done)
}

/// Signs in, with the user at a browser, unless it is stopped. `again` is the command that would do it another time.
pub(super) async fn sign_in(
    login: &Login,
    name: &str,
    again: &str,
    how: &How,
    stop: &mut watch::Receiver<bool>,
) -> Result<SignedIn, Failure> {
    let work = async {
        if how.device {
            login.by_device(|prompt| say(&device_text(name, prompt))).await
        } else {
            let open = !how.no_browser && has_display(|name| std::env::var_os(name).is_some_and(|v| !v.is_empty()));
            login.by_browser(LIMIT, |address| send(again, address, open)).await
        }
    };
    tokio::select! {
        result = work => result.map_err(|error| {
            let text = login.told(&error);
            Failure { text, ..error.into() }
        }),
        _ = stop.wait_for(|stop| *stop) => {
            let text = format!("account {name} was not signed in; to try again: {again}");
            Err(Failure { exit: Exit::SignIn, text })
        }
    }
}

/// Tells whether there is a screen that a browser could appear on.
fn has_display(is_set: impl Fn(&str) -> bool) -> bool {
    is_set("DISPLAY") || is_set("WAYLAND_DISPLAY")
}

/// Sends the user's browser away, or asks the user to do so.
fn send(again: &str, address: &str, open: bool) {
    let opened = open && open_browser(address);
    say(&browser_text(again, address, opened));
}

/// Starts the user's browser; it is left to itself.
fn open_browser(address: &str) -> bool {
    let mut command = std::process::Command::new("xdg-open");
    let command = command.arg(address).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match command.spawn() {
        Ok(mut child) => {
            // Some wait for the browser to end.
            let reap = move || drop(child.wait());
            if let Err(error) = std::thread::Builder::new().name("browser".to_owned()).spawn(reap) {
                tracing::debug!(%error, "nobody waits for the browser");
            }
            true
        }
        Err(error) => {
            tracing::debug!(%error, "could not start xdg-open");
            false
        }
    }
}

/// What is said meanwhile; that nobody reads it shows when nobody comes.
fn say(text: &str) {
    if let Err(error) = output::print(text) {
        tracing::warn!(%error, "cannot write to standard output");
    }
}

fn browser_text(again: &str, address: &str, opened: bool) -> String {
    let what = if opened {
        "Your browser opens a page to sign in. If it does not, open this address on this machine:"
    } else {
        "To sign in, open this address in a browser on this machine:"
    };
    format!(
        "{what}\n\n    {}\n\nWaiting for the browser, at most {} minutes; Ctrl-C stops.\n\
         (With a browser on another machine: {again} --device)\n",
        harmless(address),
        LIMIT.as_secs() / 60
    )
}

fn device_text(account: &str, prompt: &DevicePrompt) -> String {
    let minutes = prompt.lifetime.as_secs().div_ceil(60);
    format!(
        "To sign in to {account}, open this address in a browser on any machine:\n\n    {}\n\nand type in this code:\n\n    {}\n\n\
         Waiting, at most {minutes} minutes; Ctrl-C stops.\n",
        prompt.address, prompt.code
    )
}

/// Says who signed in, and where that is kept.
pub(super) fn done_text(account: &str, signed_in: &SignedIn) -> String {
    let who = signed_in.name.as_ref().map_or_else(String::new, |name| format!(" as {}", harmless(name)));
    format!("Signed in to {account}{who}; the sign-in is kept in {}.\n", harmless(&signed_in.place.to_string()))
}

impl From<TokenError> for Failure {
    fn from(error: TokenError) -> Self {
        let exit = match &error {
            TokenError::NoClientId { .. } | TokenError::Configuration { .. } | TokenError::Refused { .. } => {
                Exit::Usage
            }
            TokenError::NotSignedIn { .. }
            | TokenError::Ended { .. }
            | TokenError::Restricted { .. }
            | TokenError::Declined { .. }
            | TokenError::TooLate { .. }
            | TokenError::Somebody { .. } => Exit::SignIn,
            TokenError::Later { .. } => Exit::Unreachable,
            TokenError::Store { .. } | TokenError::Local(_) => Exit::Partial,
        };
        Self { exit, text: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Place;

    #[test]
    fn a_browser_needs_a_screen() {
        for (set, has) in [(&["DISPLAY"][..], true), (&["WAYLAND_DISPLAY"], true), (&[], false), (&["BROWSER"], false)]
        {
            assert_eq!(has_display(|name| set.contains(&name)), has, "{set:?}");
        }
    }

    #[test]
    fn the_user_is_told_what_to_do() {
        let prompt = DevicePrompt {
            address: "https://microsoft.com/devicelogin".to_owned(),
            code: "ABCD1234".to_owned(),
            lifetime: Duration::from_secs(900),
        };
        insta::assert_snapshot!(device_text("personal", &prompt), @r"
        To sign in to personal, open this address in a browser on any machine:

            https://microsoft.com/devicelogin

        and type in this code:

            ABCD1234

        Waiting, at most 15 minutes; Ctrl-C stops.
        ");
        insta::assert_snapshot!(browser_text("postkeep login personal", "https://sign-in.example/?a=b", false), @r"
        To sign in, open this address in a browser on this machine:

            https://sign-in.example/?a=b

        Waiting for the browser, at most 15 minutes; Ctrl-C stops.
        (With a browser on another machine: postkeep login personal --device)
        ");
        let signed_in = SignedIn { name: Some("a@outlook.com".to_owned()), place: Place::Keyring };
        let text = "Signed in to personal as a@outlook.com; the sign-in is kept in the Secret Service.\n";
        assert_eq!(done_text("personal", &signed_in), text);
    }
}
