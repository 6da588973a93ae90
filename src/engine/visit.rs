//! Looks at an account's server beside whoever has the account: nothing is locked, and nothing is written but a sign-in
//! that was renewed.

use std::path::Path;

use super::Error;
use super::mirror::connect;
use super::pool::{Lease, Pool};
use crate::auth::TokenSource;
use crate::config::Account;
use crate::imap::Route;

/// A visit to an account's server.
pub struct Visit<'a>(Pool<'a>);

impl<'a> Visit<'a> {
    /// Prepares a visit; over IPv4 only, if that is known to be the way.
    ///
    /// # Errors
    /// [`Error::Token`] if the account cannot sign in as it is configured.
    pub fn new(account: &'a Account, state_dir: &Path, ipv4_only: bool) -> Result<Self, Error> {
        let route = Route::default();
        route.set_ipv4_only(ipv4_only);
        Ok(Self(Pool::new(account, connect(account, state_dir, route), state_dir)?))
    }

    /// Returns where the account's access tokens come from; none if it signs in with a password.
    #[must_use]
    pub fn tokens(&self) -> Option<&TokenSource> {
        self.0.tokens()
    }

    /// Returns a signed-in session.
    ///
    /// # Errors
    /// Those of connecting and signing in.
    pub async fn session(&self) -> Result<Lease<'_>, Error> {
        self.0.get().await
    }

    /// Says goodbye on the sessions that were given back.
    pub async fn close(&self) {
        self.0.close().await;
    }
}
