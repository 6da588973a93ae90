//! The sessions of an account: as many as are allowed, opened when they are needed, used again while they work.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};
use std::sync::Weak;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, Semaphore, SemaphorePermit};

use super::Error;
use crate::config::{Account, Auth};
use crate::imap::{self, Connect, Credentials, Cutter, Session};
use crate::model::Secret;

/// The sessions of one account.
pub(super) struct Pool<'a> {
    account: &'a Account,
    connect: Connect,
    idle: RefCell<Vec<Rested>>,
    places: Semaphore,
    cutters: RefCell<Vec<Weak<Cutter>>>,
    /// Asked for once: a password command may ask the user.
    secret: Mutex<Option<Secret>>,
}

/// A session that nobody needs now, since when.
struct Rested(Session, Instant);

/// A session that rested for so long is asked whether it is still alive, …
const DOUBTFUL: Duration = Duration::from_secs(60);
/// … for at most this long.
const PATIENCE: Duration = Duration::from_secs(10);

/// A session on loan. It goes back by [`Lease::give_back`]; dropped, it is closed, since nobody knows what state it is in.
pub struct Lease<'p> {
    session: Session,
    idle: &'p RefCell<Vec<Rested>>,
    _place: SemaphorePermit<'p>,
}

impl<'a> Pool<'a> {
    pub(super) fn new(account: &'a Account, connect: Connect) -> Self {
        let places = Semaphore::new(account.connections.max(1));
        let (idle, cutters) = (RefCell::default(), RefCell::default());
        Self { account, connect, idle, places, cutters, secret: Mutex::new(None) }
    }

    /// Returns a session, as soon as one is free or may be opened.
    pub(super) async fn get(&self) -> Result<Lease<'_>, Error> {
        let place = self.places.acquire().await.map_err(|_| Error::Stopped)?;
        let session = match self.rested().await {
            Some(session) => session,
            None => Session::open(&self.connect, &self.credentials().await?).await?,
        };
        let mut cutters = self.cutters.borrow_mut();
        cutters.retain(|cutter| cutter.strong_count() > 0);
        cutters.extend(session.cutter());
        Ok(Lease { session, idle: &self.idle, _place: place })
    }

    /// Returns a session that can be used again.
    async fn rested(&self) -> Option<Session> {
        loop {
            let Rested(mut session, since) = self.idle.borrow_mut().pop()?;
            if since.elapsed() < DOUBTFUL {
                return Some(session);
            }
            match tokio::time::timeout(PATIENCE, session.noop()).await {
                Ok(Ok(())) => return Some(session),
                Ok(Err(error)) => tracing::debug!(%error, "a session ended while it rested"),
                Err(_) => tracing::debug!("a session that rested does not answer"),
            }
        }
    }

    /// Breaks all connections.
    pub(super) fn cut(&self) {
        self.idle.borrow_mut().clear();
        self.cutters.take().iter().filter_map(Weak::upgrade).for_each(|cutter| cutter.cut());
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
        futures_util::future::join_all(sessions.into_iter().map(|Rested(session, _)| async move {
            if let Err(error) = session.logout().await {
                tracing::debug!(%error, "did not log out");
            }
        }))
        .await;
    }
}

impl Lease<'_> {
    /// Puts the session back for others.
    pub fn give_back(self) {
        self.idle.borrow_mut().push(Rested(self.session, Instant::now()));
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
