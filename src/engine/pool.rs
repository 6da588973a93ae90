//! The sessions of an account: as many as are allowed, opened when they are needed, used again while they work.

use std::cell::{Cell, RefCell};
use std::ops::{Deref, DerefMut};

use tokio::sync::{Mutex, Semaphore, SemaphorePermit};

use super::Error;
use crate::config::{Account, Auth};
use crate::imap::{self, Connect, Credentials, Session};
use crate::model::Secret;

/// The sessions of one account.
pub(super) struct Pool<'a> {
    account: &'a Account,
    connect: Connect,
    idle: RefCell<Vec<Session>>,
    places: Semaphore,
    /// How many there may be, as far as the server lets them in.
    most: Cell<usize>,
    /// Asked for once: a password command may ask the user.
    secret: Mutex<Option<Secret>>,
}

/// A session on loan. It goes back by [`Lease::give_back`]; dropped, it is closed, since nobody knows what state it is in.
pub(super) struct Lease<'p> {
    session: Session,
    idle: &'p RefCell<Vec<Session>>,
    _place: SemaphorePermit<'p>,
}

impl<'a> Pool<'a> {
    pub(super) fn new(account: &'a Account, connect: Connect) -> Self {
        let most = account.connections.max(1);
        let places = Semaphore::new(most);
        Self { account, connect, idle: RefCell::default(), places, most: Cell::new(most), secret: Mutex::new(None) }
    }

    /// Returns a session, as soon as one is free or may be opened.
    pub(super) async fn get(&self) -> Result<Lease<'_>, Error> {
        loop {
            let place = self.places.acquire().await.map_err(|_| Error::Stopped)?;
            let idle = self.idle.borrow_mut().pop();
            let session = match idle {
                Some(session) => session,
                None => match Session::open(&self.connect, &self.credentials().await?).await {
                    Err(error @ imap::Error::NotConnected { .. }) if self.others() > 0 => {
                        tracing::warn!(account = self.account.name, %error, "made do with fewer connections");
                        self.most.set(self.most.get() - 1);
                        place.forget();
                        continue;
                    }
                    result => result?,
                },
            };
            return Ok(Lease { session, idle: &self.idle, _place: place });
        }
    }

    /// Returns how many sessions others have: that one more leads to no mailbox may be for those.
    fn others(&self) -> usize {
        self.most.get().saturating_sub(self.places.available_permits() + 1)
    }

    async fn credentials(&self) -> Result<Credentials, Error> {
        let username = self.account.username.clone();
        match &self.account.auth {
            Auth::Password(source) => {
                let mut secret = self.secret.lock().await;
                let password = match secret.as_ref() {
                    Some(password) => password.clone(),
                    None => secret.insert(source.password().await?).clone(),
                };
                Ok(Credentials::Password { username, password })
            }
            Auth::OAuth2(_) => Err(imap::Error::Configuration(format!(
                "account {} signs in with OAuth 2.0, which this version cannot do yet",
                self.account.name
            ))
            .into()),
        }
    }

    /// Says goodbye on all sessions that are not on loan.
    pub(super) async fn close(&self) {
        let sessions = self.idle.take();
        futures_util::future::join_all(sessions.into_iter().map(|session| async move {
            if let Err(error) = session.logout().await {
                tracing::debug!(%error, "did not log out");
            }
        }))
        .await;
    }
}

impl Lease<'_> {
    /// Puts the session back for others.
    pub(super) fn give_back(self) {
        self.idle.borrow_mut().push(self.session);
    }

    /// Puts the session back if `result` shows that it is still in step, and returns the result.
    pub(super) fn done<T>(self, result: Result<T, Error>) -> Result<T, Error> {
        let in_step = match &result {
            Ok(_) => true,
            Err(Error::Imap(error)) => {
                error.scope() != imap::Scope::Account && !matches!(error, imap::Error::TooLarge { .. })
            }
            Err(_) => false,
        };
        if in_step {
            self.give_back();
        }
        result
    }
}

impl Deref for Lease<'_> {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

impl DerefMut for Lease<'_> {
    fn deref_mut(&mut self) -> &mut Session {
        &mut self.session
    }
}
