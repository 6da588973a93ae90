//! Access tokens for an account, as long as its sign-in lasts.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;

use super::TokenError;
use super::access::{Access, Unsaved};
use super::clock::{now, renew_age};
use super::store::Place;
use crate::config::{Account, OAuth};
use crate::model::Secret;

/// After a failure nobody asks again for so long: several connections want a token at once.
const HUSH: Duration = Duration::from_secs(10);

/// Hands out access tokens for one account. Keep it for as long as the account is in use: what it knows is nowhere else.
#[derive(Debug)]
pub struct TokenSource {
    access: Arc<Access>,
    /// Held while a token is renewed, so that only one is asked for.
    state: Mutex<State>,
    /// Tokens up to this number are of no use, whatever their age.
    spent: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    token: Option<AccessToken>,
    unsaved: Option<Unsaved>,
    /// The last failure, and until when it stands.
    failed: Option<(TokenError, Duration)>,
}

/// An access token, and who it is for.
#[derive(Clone)]
pub struct AccessToken {
    secret: Secret,
    username: Option<String>,
    number: u64,
    asked_at: Duration,
    lifetime: Duration,
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccessToken({})", self.number)
    }
}

impl AccessToken {
    /// Returns the token itself.
    #[must_use]
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Returns the name to sign in with, if it is known: the configured one, else that of who signed in.
    #[must_use]
    pub fn username(&self) -> Option<&str> {
        self.username.as_deref()
    }

    /// Returns how long the token was good for when it was asked for.
    #[must_use]
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// Tells whether both are the same token.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.number == other.number
    }

    fn age(&self) -> Duration {
        now().saturating_sub(self.asked_at)
    }
}

impl TokenSource {
    /// Makes a source for an account whose sign-in is kept in `state_dir`, or in the Secret Service.
    ///
    /// # Errors
    /// [`TokenError::NoClientId`], or [`TokenError::Configuration`] if `tls_ca_file` cannot be read.
    pub fn new(account: &Account, oauth: &OAuth, state_dir: &Path) -> Result<Self, TokenError> {
        let access = Arc::new(Access::new(account, oauth, state_dir)?);
        Ok(Self { access, state: Mutex::default(), spent: AtomicU64::new(0) })
    }

    /// Returns a token with some life left in it. One that a session was opened with and that is no longer returned is
    /// about to run out, and its session with it.
    ///
    /// # Errors
    /// [`TokenError`]; the sign-in is kept whatever happens.
    pub async fn token(&self) -> Result<AccessToken, TokenError> {
        let mut state = self.state.lock().await;
        let spent = self.spent.load(Ordering::Relaxed);
        let current = state.token.clone().filter(|token| token.number > spent);
        if let Some(token) = current.as_ref().filter(|token| token.age() < renew_age(token.lifetime)) {
            let token = token.clone();
            self.save(&mut state).await;
            return Ok(token);
        }
        match (self.renew(&mut state).await, current) {
            (Err(error @ TokenError::Later { .. }), Some(token)) if token.age() < token.lifetime => {
                tracing::info!(account = self.access.account, %error, "goes on with the token that it has");
                Ok(token)
            }
            (result, _) => result,
        }
    }

    /// Returns a token in place of one that a server refused: one that somebody else got meanwhile, else a new one.
    ///
    /// # Errors
    /// [`TokenError`]; the sign-in is kept whatever happens.
    pub async fn instead_of(&self, refused: &AccessToken) -> Result<AccessToken, TokenError> {
        self.is_spent(refused);
        self.token().await
    }

    /// Notes that a server does not take a token any more.
    pub fn is_spent(&self, token: &AccessToken) {
        self.spent.fetch_max(token.number, Ordering::Relaxed);
    }

    /// Returns where the sign-in is kept, and who signed in, if anybody did and that is known.
    ///
    /// # Errors
    /// [`TokenError`] if it cannot be read, or is of no use any more.
    pub async fn kept(&self) -> Result<(Place, Option<String>), TokenError> {
        let access = Arc::clone(&self.access);
        let found = tokio::task::spawn_blocking(move || access.kept()).await;
        found.map_err(|error| TokenError::Local(format!("reading the sign-in ended unexpectedly: {error}")))?
    }

    /// Returns by how many seconds the sign-in server's clock was ahead of ours in its last answer, if it told.
    #[must_use]
    pub fn clock_ahead(&self) -> Option<i64> {
        self.access.grant.clock_ahead()
    }

    /// Returns what the user should know: that the newest sign-in could not be kept, though that was tried again now.
    pub async fn complaint(&self) -> Option<String> {
        let mut state = self.state.lock().await;
        self.save(&mut state).await;
        let account = &self.access.account;
        state.unsaved.as_ref().map(|unsaved| {
            format!(
                "the renewed sign-in could not be kept: {}; the one before is kept, and good for as long as the server \
                 takes it. When that is put right, the next pass renews it; if that fails: postkeep login {account}",
                unsaved.why
            )
        })
    }

    async fn save(&self, state: &mut State) {
        let Some(unsaved) = state.unsaved.clone() else { return };
        let access = Arc::clone(&self.access);
        if let Ok(left) = tokio::task::spawn_blocking(move || access.save_again(unsaved)).await {
            state.unsaved = left;
        }
    }

    /// Gets a new token. Whoever waits for it may give up: it is got, and what comes with it is saved, in any case.
    async fn renew(&self, state: &mut State) -> Result<AccessToken, TokenError> {
        if let Some((error, until)) = &state.failed
            && now() < *until
        {
            return Err(error.clone());
        }
        let (access, unsaved, asked_at) = (Arc::clone(&self.access), state.unsaved.clone(), now());
        let renewed = tokio::task::spawn_blocking(move || access.renew(unsaved)).await;
        let ended = |error| TokenError::Local(format!("renewing the sign-in ended unexpectedly: {error}"));
        let (result, unsaved) = renewed.map_err(ended)?;
        state.unsaved = unsaved;
        match result {
            Ok(tokens) => {
                let number = state.token.as_ref().map_or(1, |token| token.number + 1);
                let token = AccessToken {
                    secret: tokens.access,
                    username: self.access.username.clone().or(tokens.name),
                    number,
                    asked_at,
                    lifetime: tokens.lifetime,
                };
                tracing::debug!(
                    account = self.access.account,
                    number,
                    seconds = tokens.lifetime.as_secs(),
                    "got a token"
                );
                (state.token, state.failed) = (Some(token.clone()), None);
                Ok(token)
            }
            Err(error) => {
                let pause = match &error {
                    TokenError::Later { pause, .. } => pause.unwrap_or_default().max(HUSH),
                    _ => HUSH,
                };
                state.failed = Some((error.clone(), now() + pause));
                Err(error)
            }
        }
    }
}
