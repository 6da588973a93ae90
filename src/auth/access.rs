//! What signing in and renewing have in common: an account, who hands out its tokens, and where its sign-in is kept.

use std::path::Path;

use super::TokenError;
use super::error::words;
use super::grant::{Grant, Problem, Tokens};
use super::http::Http;
use super::kept::Kept;
use super::store::{Place, Store, StoreError};
use crate::config::{Account, OAuth};
use crate::model::Secret;
use crate::step;

/// An account that signs in with OAuth 2.0.
#[derive(Clone, Debug)]
pub(super) struct Access {
    pub(super) account: String,
    pub(super) grant: Grant,
    pub(super) store: Store,
    /// The login name, where the configuration has one.
    pub(super) username: Option<String>,
    client_id: String,
    token_url: String,
}

/// A sign-in that is newer than the one that is kept, since it could not be saved.
#[derive(Clone, Debug)]
pub(super) struct Unsaved {
    kept: Kept,
    place: Place,
    /// The token that is kept, as long as nobody else replaced it.
    instead_of: Secret,
    /// What kept it from being saved.
    pub(super) why: StoreError,
}

impl Access {
    /// # Errors
    /// [`TokenError::NoClientId`] or [`TokenError::Configuration`].
    pub(super) fn new(account: &Account, oauth: &OAuth, state_dir: &Path) -> Result<Self, TokenError> {
        let name = account.name.clone();
        let Some(client_id) = oauth.client_id.clone() else { return Err(TokenError::NoClientId { account: name }) };
        let wrong = |what| TokenError::Configuration { account: name.clone(), what };
        let http = Http::new(account.tls_ca_file.as_deref()).map_err(wrong)?;
        Ok(Self {
            grant: Grant::new(&client_id, oauth, http).map_err(wrong)?,
            store: Store::new(oauth.token_store, &account.name, state_dir),
            username: oauth.username.clone(),
            client_id,
            token_url: oauth.token_url.clone(),
            account: name,
        })
    }

    /// Returns what to keep of new tokens; nothing if there is no refresh token among them.
    pub(super) fn to_keep(&self, tokens: &Tokens) -> Option<Kept> {
        Some(Kept {
            client_id: self.client_id.clone(),
            token_url: self.token_url.clone(),
            username: tokens.name.clone(),
            refresh_token: tokens.refresh.clone()?,
        })
    }

    /// Returns what a problem means to the user.
    pub(super) fn error(&self, problem: Problem) -> TokenError {
        let account = self.account.clone();
        match problem {
            Problem::Later(why, pause) => {
                TokenError::Later { account, host: words(self.grant.host(), &[]), why, pause }
            }
            Problem::Ended(said) => TokenError::Ended { account, said },
            Problem::Restricted(said) => TokenError::Restricted { account, said },
            Problem::Declined(said) => TokenError::Declined { account, said },
            Problem::TooLate => TokenError::TooLate { account },
            Problem::Refused(said) => TokenError::Refused { account, said },
        }
    }

    pub(super) fn store_error(&self, source: StoreError) -> TokenError {
        TokenError::Store { account: self.account.clone(), source }
    }

    /// Gets new tokens for the newest sign-in, and keeps the one that comes with them; returns the tokens, with the login
    /// name, and what could not be saved. Blocks; no two processes do it at once.
    pub(super) fn renew(&self, unsaved: Option<Unsaved>) -> (Result<Tokens, TokenError>, Option<Unsaved>) {
        let _lock = match self.store.lock() {
            Ok(lock) => lock,
            Err(error) => return (Err(self.store_error(error)), unsaved),
        };
        let (kept, place, unsaved) = match self.newest(unsaved) {
            Ok(newest) => newest,
            Err((error, unsaved)) => return (Err(error), unsaved),
        };
        let mut tokens = match self.grant.refresh(&kept.refresh_token) {
            Ok(tokens) => tokens,
            Err(problem) => return (Err(self.error(problem)), unsaved),
        };
        step::before("keep token");
        let instead_of = unsaved.as_ref().map_or(&kept.refresh_token, |unsaved| &unsaved.instead_of).clone();
        let newer = Kept {
            username: tokens.name.take().or(kept.username.clone()),
            refresh_token: tokens.refresh.take().unwrap_or(kept.refresh_token.clone()),
            ..kept.clone()
        };
        tokens.name = newer.username.clone();
        if unsaved.is_none() && newer == kept {
            return (Ok(tokens), None);
        }
        let unsaved = self.save(newer, place, instead_of);
        (Ok(tokens), unsaved)
    }

    /// Tries again to save what could not be saved. Blocks.
    pub(super) fn save_again(&self, unsaved: Unsaved) -> Option<Unsaved> {
        let Ok(_lock) = self.store.lock() else { return Some(unsaved) };
        match self.newest(Some(unsaved)) {
            Ok((_, _, Some(Unsaved { kept, place, instead_of, .. }))) => self.save(kept, place, instead_of),
            // Somebody signed in meanwhile, or took the sign-in away.
            Ok((_, _, None)) => None,
            Err((_, unsaved)) => unsaved,
        }
    }

    fn save(&self, kept: Kept, place: Place, instead_of: Secret) -> Option<Unsaved> {
        match self.store.save(&kept, &place) {
            Ok(()) => None,
            Err(why) => {
                tracing::warn!(account = self.account, error = %why, "the renewed sign-in could not be kept");
                Some(Unsaved { kept, place, instead_of, why })
            }
        }
    }

    /// Returns where the sign-in is kept, and who signed in. Blocks.
    pub(super) fn kept(&self) -> Result<(Place, Option<String>), TokenError> {
        let (kept, place, _) = self.newest(None).map_err(|(error, _)| error)?;
        Ok((place, self.username.clone().or(kept.username)))
    }

    /// Returns the newest sign-in, where it is or should be kept, and itself again if it is not kept yet.
    #[allow(clippy::type_complexity)] // Two callers take it apart at once.
    #[expect(clippy::result_large_err, reason = "it is rare, and handed on once")]
    fn newest(
        &self,
        unsaved: Option<Unsaved>,
    ) -> Result<(Kept, Place, Option<Unsaved>), (TokenError, Option<Unsaved>)> {
        let not_signed_in =
            |because: &str| TokenError::NotSignedIn { account: self.account.clone(), because: because.to_owned() };
        let (kept, place, unsaved) = match (self.store.load(), unsaved) {
            (Ok(Some((kept, _))), Some(unsaved)) if kept.refresh_token.expose() == unsaved.instead_of.expose() => {
                (unsaved.kept.clone(), unsaved.place.clone(), Some(unsaved))
            }
            (Ok(Some((kept, place))), _) => (kept, place, None),
            // It is still good, whatever befell the place.
            (Err(_), Some(unsaved)) => (unsaved.kept.clone(), unsaved.place.clone(), Some(unsaved)),
            (Ok(None), _) => return Err((not_signed_in(""), None)),
            (Err(StoreError::NoKeyring { why }), None) => {
                let because = format!(" here: no file holds a sign-in, and there is no Secret Service ({why})");
                return Err((not_signed_in(&because), None));
            }
            (Err(error), None) => return Err((self.store_error(error), None)),
        };
        if kept.client_id != self.client_id || kept.token_url != self.token_url {
            return Err((not_signed_in(" any more: client_id, tenant or token_url is another one now"), unsaved));
        }
        Ok((kept, place, unsaved))
    }
}
