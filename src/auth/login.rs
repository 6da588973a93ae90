//! Signing in, with the user at a browser.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::TokenError;
use super::access::Access;
use super::grant::{Problem, Tokens, meaning_of_visit};
use super::loopback::{Brought, Loopback};
use super::page;
use super::store::{Place, StoreError};
use crate::config::{Account, OAuth, TokenStore};

/// Signs in to an account.
#[derive(Debug)]
pub struct Login {
    access: Arc<Access>,
    /// The address, which is proposed to the user.
    email: String,
    which: TokenStore,
    /// The command that signs in, for who tries it again.
    again: String,
    /// The command to go on with, if that one does not do so itself.
    next: Option<String>,
}

/// What a user without a browser here is to do elsewhere. Its texts are fit to be shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DevicePrompt {
    /// The address to open.
    pub address: String,
    /// What to type in there.
    pub code: String,
    /// How long that is possible.
    pub lifetime: Duration,
}

/// A sign-in that is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignedIn {
    /// Who signed in, if the server told.
    pub name: Option<String>,
    /// Where the sign-in is kept.
    pub place: Place,
}

impl Login {
    /// Prepares for an account.
    ///
    /// # Errors
    /// [`TokenError::NoClientId`] or [`TokenError::Configuration`].
    pub fn new(account: &Account, oauth: &OAuth, state_dir: &Path) -> Result<Self, TokenError> {
        let access = Arc::new(Access::new(account, oauth, state_dir)?);
        let (again, next) = (format!("postkeep login {}", account.name), format!("postkeep sync {}", account.name));
        Ok(Self { access, email: account.email.clone(), which: oauth.token_store, again, next: Some(next) })
    }

    /// Prepares to sign in for a command that does more than that, and goes on by itself.
    #[must_use]
    pub fn part_of(self, command: &str) -> Self {
        Self { again: command.to_owned(), next: None, ..self }
    }

    /// Returns the text of an error, with the command to try it again with.
    #[must_use]
    pub fn told(&self, error: &TokenError) -> String {
        error.to_string().replace(&format!("postkeep login {}", self.access.account), &self.again)
    }

    /// Signs in by a browser on this machine: authorization code with PKCE (RFC 7636), and a loopback redirect (RFC 8252).
    /// `show` is given the address to open. It may be cancelled at any time.
    ///
    /// # Errors
    /// [`TokenError`]; nothing was changed then.
    pub async fn by_browser(&self, limit: Duration, show: impl FnOnce(&str)) -> Result<SignedIn, TokenError> {
        let place = self.choose().await?;
        let account = &self.access.account;
        let no_port = |error| TokenError::Local(format!("cannot open a port for the browser to come back to: {error}"));
        let loopback = Loopback::open().await.map_err(no_port)?;
        let redirect = loopback.redirect();
        let journey = self.access.grant.send_away(&redirect, &self.email);
        let journey = journey.ok_or_else(|| self.lacks("authorize_url", "--device"))?;
        show(&journey.address);
        let state = journey.state.clone();
        let visit = loopback.wait(&state, limit).await;
        let visit = visit.ok_or_else(|| TokenError::TooLate { account: account.clone() })?;
        let result = match &visit.brought {
            Brought::Code(code) => match self.access.grant.exchange(code, journey, &redirect).await {
                Ok(tokens) => self.keep(tokens, place).await,
                Err(problem) => Err(self.access.error(problem)),
            },
            Brought::Error(error, description) => Err(self.access.error(meaning_of_visit(error, description))),
        };
        let page = match &result {
            Ok(signed_in) => page::signed_in(account, signed_in.name.as_deref(), self.next.as_deref()),
            Err(TokenError::Declined { said, .. }) => page::declined(account, said, &self.again),
            Err(error) => page::failed(account, &self.told(error), &self.again),
        };
        visit.show(&page).await;
        result
    }

    /// Signs in by a browser elsewhere: device authorization (RFC 8628). `show` is given what to do there. It may be
    /// cancelled at any time.
    ///
    /// # Errors
    /// [`TokenError`]; nothing was changed then.
    pub async fn by_device(&self, show: impl FnOnce(&DevicePrompt)) -> Result<SignedIn, TokenError> {
        let place = self.choose().await?;
        let failed = |problem: Problem| self.access.error(problem);
        let device = self.access.grant.device().await.map_err(failed)?;
        let device = device.ok_or_else(|| self.lacks("device_url", "no --device"))?;
        show(&DevicePrompt { address: device.address(), code: device.code(), lifetime: device.lifetime() });
        let tokens = self.access.grant.poll(&device, tokio::time::sleep).await.map_err(failed)?;
        self.keep(tokens, place).await
    }

    fn lacks(&self, key: &str, other: &str) -> TokenError {
        let account = self.access.account.clone();
        let what = format!("there is no {key} below [account.{account}.oauth]; name it, or use {other}");
        TokenError::Configuration { account, what }
    }

    /// Finds out where the sign-in will be kept, before the user does anything for it.
    async fn choose(&self) -> Result<Place, TokenError> {
        let access = Arc::clone(&self.access);
        on_thread(move || access.store.choose().map_err(|error| access.store_error(error))).await
    }

    /// Keeps a sign-in, unless it is somebody else's.
    async fn keep(&self, tokens: Tokens, place: Place) -> Result<SignedIn, TokenError> {
        let (access, which) = (Arc::clone(&self.access), self.which);
        on_thread(move || keep(&access, &tokens, place, which)).await
    }
}

async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TokenError> + Send + 'static,
) -> Result<T, TokenError> {
    let ended = |error| TokenError::Local(format!("the sign-in ended unexpectedly: {error}"));
    tokio::task::spawn_blocking(work).await.map_err(ended)?
}

fn keep(access: &Access, tokens: &Tokens, place: Place, which: TokenStore) -> Result<SignedIn, TokenError> {
    let account = access.account.clone();
    let Some(kept) = access.to_keep(tokens) else {
        let what = format!(
            "the server gave no refresh token, without which this would have to be done every hour; add offline_access \
             to scope below [account.{account}.oauth]"
        );
        return Err(TokenError::Configuration { account, what });
    };
    let store_error = |error: StoreError| access.store_error(error);
    let _lock = access.store.lock().map_err(store_error)?;
    // What cannot be read any more is replaced.
    let before = access.store.load().ok().flatten().and_then(|(kept, _)| kept.username);
    if let (None, Some(before), Some(now)) = (&access.username, before, &kept.username)
        && !before.eq_ignore_ascii_case(now)
    {
        return Err(TokenError::Somebody { account, now: now.clone(), before });
    }
    let place = match access.store.save(&kept, &place) {
        Ok(()) => place,
        Err(StoreError::Keyring { why }) if which == TokenStore::Auto => {
            tracing::warn!(account, why, "the Secret Service does not keep the sign-in; it goes into a file");
            let file = access.store.file();
            access.store.save(&kept, &file).map_err(store_error)?;
            file
        }
        Err(error) => return Err(store_error(error)),
    };
    if let Err(error) = access.store.forget_other_than(&place) {
        tracing::warn!(account, %error, "an older sign-in could not be removed");
    }
    Ok(SignedIn { name: kept.username, place })
}
