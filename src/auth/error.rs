//! Why there is no access token: one variant for each thing to do about it.

use std::time::Duration;

use super::store::StoreError;
use crate::model::{Secret, misleads};

/// Why there is no access token.
///
/// Words of the server in it are without control characters, without secrets and at most 300 characters long.
#[derive(thiserror::Error, Clone, Debug)]
pub enum TokenError {
    /// This program is registered nowhere.
    #[error(
        "account {account} needs a client_id, the id of an app registration that may ask for access to your mail, and \
         postkeep has none of its own. Register one at https://entra.microsoft.com (App registrations; account types \
         with personal Microsoft accounts; platform \"Mobile and desktop applications\" with the redirect address \
         http://localhost; public client flows allowed), or take one that you may use, write it as client_id = \"…\" \
         below [account.{account}.oauth], and run: postkeep login {account}"
    )]
    NoClientId {
        /// The account.
        account: String,
    },
    /// The configuration lacks what this way of signing in needs.
    #[error("account {account}: {what}")]
    Configuration {
        /// The account.
        account: String,
        /// What is missing or wrong.
        what: String,
    },
    /// Nobody has signed in, or under another configuration.
    #[error("account {account} is not signed in{because}; run: postkeep login {account}")]
    NotSignedIn {
        /// The account.
        account: String,
        /// Empty, or why what is kept is of no use, with the words before it.
        because: String,
    },
    /// The authorization server does not take the refresh token any more.
    #[error("the sign-in of account {account} has ended ({said}); sign in again with: postkeep login {account}")]
    Ended {
        /// The account.
        account: String,
        /// The server's words.
        said: String,
    },
    /// Microsoft has locked the user's account; signing in again does not help.
    #[error(
        "Microsoft has restricted the user of account {account} ({said}); signing in again does not help before that is \
         resolved: open https://outlook.com in a browser, follow what it says, and then run: postkeep login {account}"
    )]
    Restricted {
        /// The account.
        account: String,
        /// The server's words.
        said: String,
    },
    /// The authorization server does not accept how this program asks.
    #[error(
        "the sign-in server refused account {account}: {said}; check client_id, tenant and scope below \
         [account.{account}.oauth], then run: postkeep login {account}"
    )]
    Refused {
        /// The account.
        account: String,
        /// The server's words.
        said: String,
    },
    /// The user said no.
    #[error(
        "the sign-in of account {account} was declined ({said}); nothing was changed. To try again: postkeep login {account}"
    )]
    Declined {
        /// The account.
        account: String,
        /// The server's words.
        said: String,
    },
    /// The user took too long.
    #[error(
        "nobody signed in to account {account} in time; nothing was changed. To try again: postkeep login {account}"
    )]
    TooLate {
        /// The account.
        account: String,
    },
    /// Somebody else signed in than before: the mirror is not theirs.
    #[error(
        "that was {now}, but account {account} mirrors the mailbox of {before}; nothing was changed. To mirror {now} too, \
         give it an account and a maildir of its own; if {before} is called {now} now, write username = \"{now}\" into \
         [account.{account}]. Then: postkeep login {account}"
    )]
    Somebody {
        /// The account.
        account: String,
        /// Who signed in.
        now: String,
        /// Who had signed in before.
        before: String,
    },
    /// The authorization server cannot be reached, or asks to come back later. What is kept stays.
    #[error(
        "the sign-in server {host} cannot be used now: {why}; nothing was changed for account {account}, try again later"
    )]
    Later {
        /// The account.
        account: String,
        /// The server.
        host: String,
        /// What happened.
        why: String,
        /// How long the server asked to be left alone.
        pause: Option<Duration>,
    },
    /// What is kept cannot be read or written.
    #[error("{source}; if that cannot be put right, run: postkeep login {account}")]
    Store {
        /// The account.
        account: String,
        /// What is wrong with it.
        source: StoreError,
    },
    /// The machine does not let the program do it.
    #[error("{0}")]
    Local(String),
}

/// Returns the server's words fit to be shown: without control characters, without these secrets, at most 300 characters.
pub(super) fn words(text: &str, secrets: &[&Secret]) -> String {
    let mut text = text.to_owned();
    for secret in secrets.iter().filter(|secret| !secret.expose().is_empty()) {
        text = text.replace(secret.expose(), "[secret]");
    }
    // Microsoft adds numbers for its support, which say nothing to anybody else.
    let text = text.split("Trace ID:").next().unwrap_or_default();
    text.chars().map(|c| if misleads(c) { ' ' } else { c }).take(300).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_harmless_and_short() {
        let secret = Secret::new("hunter2".to_owned());
        let rows = [
            ("AADSTS70000: no.\r\nTrace ID: 1\r\nCorrelation ID: 2", "AADSTS70000: no."),
            ("AADSTS9002313: no. Trace ID: 1", "AADSTS9002313: no."),
            ("\u{1b}[31mthe token hunter2 is unknown", "[31mthe token [secret] is unknown"),
        ];
        for (text, shown) in rows {
            assert_eq!(words(text, &[&secret, &Secret::new(String::new())]), shown);
        }
        assert_eq!(words(&"é".repeat(2000), &[]).chars().count(), 300);
    }

    #[test]
    fn whoever_must_sign_in_is_told_how() {
        let (account, said) = ("a".to_owned(), "x".to_owned());
        let errors = [
            TokenError::NoClientId { account: account.clone() },
            TokenError::NotSignedIn { account: account.clone(), because: String::new() },
            TokenError::Ended { account: account.clone(), said: said.clone() },
            TokenError::Restricted { account: account.clone(), said: said.clone() },
            TokenError::Refused { account: account.clone(), said: said.clone() },
            TokenError::Declined { account: account.clone(), said },
            TokenError::TooLate { account },
        ];
        for error in errors {
            assert!(error.to_string().contains("postkeep login a"), "{error}");
        }
    }
}
