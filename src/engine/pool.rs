//! The sessions of an account: as many as are allowed, opened when they are needed, used again while they work.

use std::cell::{Cell, RefCell};
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::Weak;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, Notify, Semaphore, SemaphorePermit, watch};

use super::Error;
use crate::auth::{AccessToken, PasswordSource, TokenSource};
use crate::config::{Account, Auth};
use crate::imap::{self, Connect, Credentials, Cutter, Session};
use crate::model::Secret;

/// The sessions of one account.
pub(super) struct Pool<'a> {
    account: &'a Account,
    connect: Connect,
    key: Key<'a>,
    idle: RefCell<Vec<Rested>>,
    places: Semaphore,
    /// How many there may be, as far as the server lets them in, …
    most: Cell<usize>,
    /// … and since when they are fewer than are allowed.
    fewer_since: Cell<Option<Instant>>,
    /// How many are on loan to those who wait for changes, and do not come back soon.
    kept: Cell<usize>,
    /// Until then those do without any: the server lets in too few.
    crowded_until: watch::Sender<Option<Instant>>,
    /// Told when one of them gave its session back.
    given_back: Notify,
    cutters: RefCell<Vec<Weak<Cutter>>>,
    /// No sessions are opened.
    asleep: Cell<bool>,
}

/// What opens sessions.
enum Key<'a> {
    /// Asked for once: a password command may ask the user.
    Password(&'a PasswordSource, Mutex<Option<Secret>>),
    Tokens(Box<TokenSource>),
}

/// A session, and the token that it was opened with and does not outlive.
struct Open {
    session: Session,
    token: Option<AccessToken>,
}

/// A session that nobody needs now, since when.
struct Rested(Open, Instant);

/// A session that rested for so long is asked whether it is still alive, …
const DOUBTFUL: Duration = Duration::from_secs(60);
/// … for at most this long.
const PATIENCE: Duration = Duration::from_secs(10);
/// A server that did not let in as many as are allowed is asked for them again after this time.
const FEWER_FOR: Duration = Duration::from_secs(60 * 60);

/// A session on loan. It goes back by [`Lease::give_back`]; dropped, it is closed, since nobody knows what state it is in.
pub struct Lease<'p> {
    open: Open,
    pool: &'p Pool<'p>,
    _place: SemaphorePermit<'p>,
    _kept: Option<Kept<'p>>,
}

/// Counts a session that does not come back soon, as long as it is on loan.
struct Kept<'p>(&'p Cell<usize>, &'p Notify);

impl<'p> Kept<'p> {
    fn new(pool: &'p Pool<'_>) -> Self {
        pool.kept.set(pool.kept.get() + 1);
        Self(&pool.kept, &pool.given_back)
    }
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
        self.1.notify_waiters();
    }
}

impl<'a> Pool<'a> {
    /// # Errors
    /// [`Error::Token`] if the account cannot sign in as it is configured.
    pub(super) fn new(account: &'a Account, connect: Connect, state_dir: &Path) -> Result<Self, Error> {
        let key = match &account.auth {
            Auth::Password(source) => Key::Password(source, Mutex::new(None)),
            Auth::OAuth2(oauth) => Key::Tokens(Box::new(TokenSource::new(account, oauth, state_dir)?)),
        };
        let most = account.connections.max(1);
        let places = Semaphore::new(most);
        Ok(Self {
            account,
            connect,
            key,
            idle: RefCell::default(),
            places,
            most: Cell::new(most),
            fewer_since: Cell::new(None),
            kept: Cell::new(0),
            crowded_until: watch::Sender::new(None),
            given_back: Notify::new(),
            cutters: RefCell::default(),
            asleep: Cell::new(false),
        })
    }

    /// Returns where access tokens come from; none for an account with a password.
    pub(super) fn tokens(&self) -> Option<&TokenSource> {
        match &self.key {
            Key::Password(..) => None,
            Key::Tokens(tokens) => Some(tokens),
        }
    }

    /// Returns a session, as soon as one is free or may be opened.
    pub(super) async fn get(&self) -> Result<Lease<'_>, Error> {
        self.allow_all_again();
        loop {
            if self.kept.get() >= self.most.get() {
                self.crowd();
                self.all_given_back().await;
            }
            let place = self.places.acquire().await.map_err(|_| Error::Stopped)?;
            match self.open_one().await {
                Err(Error::Imap(error @ imap::Error::NotConnected { .. })) if self.others() > 0 => {
                    tracing::warn!(account = self.account.name, %error, "made do with fewer connections");
                    self.most.set(self.most.get() - 1);
                    self.fewer_since.set(Some(Instant::now()));
                    place.forget();
                }
                Err(Error::Imap(imap::Error::NotConnected { .. })) if self.kept.get() > 0 => {
                    self.crowd();
                    drop(place);
                    self.all_given_back().await;
                }
                open => return Ok(Lease { open: open?, pool: self, _place: place, _kept: None }),
            }
        }
    }

    /// Returns a session for one who does not give it back soon, and can do without it: those who do give theirs back do
    /// not make do with fewer for it.
    pub(super) async fn keep(&self) -> Result<Lease<'_>, Error> {
        let (place, kept) = loop {
            let until = *self.crowded_until.borrow();
            if let Some(until) = until {
                tokio::time::sleep_until(until.into()).await;
                self.crowded_until.send_replace(None);
                self.allow_all_again();
            }
            let place = self.places.acquire().await.map_err(|_| Error::Stopped)?;
            // The last one is for those who give theirs back.
            if self.kept.get() + 1 < self.most.get() {
                break (place, Kept::new(self));
            }
            self.crowd();
        };
        Ok(Lease { open: self.open_one().await?, pool: self, _place: place, _kept: Some(kept) })
    }

    /// Lets those who keep sessions do without for a while.
    fn crowd(&self) {
        tracing::warn!(
            account = self.account.name,
            "the server lets in so few connections that changes there are looked for in each interval only"
        );
        self.crowded_until.send_replace(Some(Instant::now() + FEWER_FOR));
    }

    /// Waits until nobody keeps a session any more.
    async fn all_given_back(&self) {
        while self.kept.get() > 0 {
            self.given_back.notified().await;
        }
    }

    /// Ends when those who keep a session are to give it back.
    pub(super) async fn is_crowded(&self) {
        let mut crowded = self.crowded_until.subscribe();
        if crowded.wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    async fn open_one(&self) -> Result<Open, Error> {
        if self.asleep.get() {
            return Err(Error::Stopped);
        }
        let open = match &self.key {
            Key::Password(source, asked) => self.with_password(source, asked).await?,
            Key::Tokens(tokens) => self.with_token(tokens).await?,
        };
        let mut cutters = self.cutters.borrow_mut();
        cutters.retain(|cutter| cutter.strong_count() > 0);
        cutters.extend(open.session.cutter());
        Ok(open)
    }

    /// What was too many an hour ago may be let in now.
    fn allow_all_again(&self) {
        if self.fewer_since.get().is_some_and(|since| since.elapsed() >= FEWER_FOR) {
            let all = self.account.connections.max(1);
            self.places.add_permits(all - self.most.replace(all));
            self.fewer_since.set(None);
        }
    }

    /// Returns how many sessions others have who give them back: that one more leads to no mailbox may be for those.
    fn others(&self) -> usize {
        self.most.get().saturating_sub(self.places.available_permits() + 1 + self.kept.get())
    }

    /// Returns a session that can be used again.
    async fn rested(&self) -> Option<Open> {
        loop {
            let Rested(mut open, since) = self.idle.borrow_mut().pop()?;
            if since.elapsed() < DOUBTFUL {
                return Some(open);
            }
            match tokio::time::timeout(PATIENCE, open.session.noop()).await {
                Ok(Ok(())) => return Some(open),
                Ok(Err(error)) => tracing::debug!(%error, "a session ended while it rested"),
                Err(_) => tracing::debug!("a session that rested does not answer"),
            }
        }
    }

    /// Breaks all connections, and opens no others until it wakes.
    pub(super) fn sleep(&self) {
        self.asleep.set(true);
        self.cut();
    }

    /// Opens connections again.
    pub(super) fn wake(&self) {
        self.asleep.set(false);
    }

    /// Breaks all connections.
    pub(super) fn cut(&self) {
        self.idle.borrow_mut().clear();
        self.cutters.take().iter().filter_map(Weak::upgrade).for_each(|cutter| cutter.cut());
    }

    async fn with_password(&self, source: &PasswordSource, asked: &Mutex<Option<Secret>>) -> Result<Open, Error> {
        if let Some(open) = self.rested().await {
            return Ok(open);
        }
        let password = {
            let mut asked = asked.lock().await;
            match asked.as_ref() {
                Some(password) => password.clone(),
                None => asked.insert(source.password().await?).clone(),
            }
        };
        let credentials = Credentials::Password { username: self.account.username.clone(), password };
        match Session::open(&self.connect, &credentials).await {
            Ok(session) => Ok(Open { session, token: None }),
            Err(imap::Error::SignIn { text }) if wants_tokens(&text) => Err(Error::SignIn(format!(
                "{} takes no passwords any more ({text}); if it is Microsoft's, put provider = \"outlook\" in the place of host \
                 and the password of [account.{name}], then run: postkeep login {name}",
                self.account.host,
                name = self.account.name
            ))),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns a session whose token has some life left in it. One whose token has not is closed in passing.
    async fn with_token(&self, tokens: &TokenSource) -> Result<Open, Error> {
        let token = tokens.token().await?;
        while let Some(open) = self.rested().await {
            if open.token.as_ref().is_some_and(|old| old.is(&token)) {
                return Ok(open);
            }
            say_goodbye(open.session).await;
        }
        let refused = match self.open(&token).await {
            Err(imap::Error::SignIn { .. } | imap::Error::TokenExpired { .. }) => token,
            result => return Ok(result?),
        };
        // It may have been revoked, or be for another server after all: a new one tells, and no third one would.
        let token = tokens.instead_of(&refused).await?;
        self.open(&token).await.map_err(|error| match error {
            imap::Error::SignIn { text } | imap::Error::TokenExpired { text } => {
                Error::SignIn(self.advice(&text, &self.username(&token)))
            }
            error => error.into(),
        })
    }

    async fn open(&self, token: &AccessToken) -> Result<Open, imap::Error> {
        let credentials = Credentials::Token { username: self.username(token), token: token.secret().clone() };
        let session = Session::open(&self.connect, &credentials).await?;
        Ok(Open { session, token: Some(token.clone()) })
    }

    fn username(&self, token: &AccessToken) -> String {
        token.username().unwrap_or(&self.account.username).to_owned()
    }

    fn advice(&self, text: &str, username: &str) -> String {
        let name = &self.account.name;
        format!(
            "the server refused the sign-in of account {name} as {username}, with a new token too: {text}. Sign in again with: \
             postkeep login {name}. If that does not help, see whether IMAP is allowed in the settings of the mailbox \
             (Outlook.com: Settings, Mail, Forwarding and IMAP), and whether {username} is the name of the account and not \
             an alias; username in [account.{name}] can name another"
        )
    }

    /// Returns what the user should know about the sign-in at the end of a pass.
    pub(super) async fn complaint(&self) -> Option<String> {
        match self.tokens() {
            Some(tokens) => tokens.complaint().await,
            None => None,
        }
    }

    /// Says goodbye on all sessions that are not on loan.
    pub(super) async fn close(&self) {
        let sessions = self.idle.take();
        futures_util::future::join_all(sessions.into_iter().map(|Rested(open, _)| say_goodbye(open.session))).await;
    }
}

/// Tells whether a server refused a password for being one.
fn wants_tokens(text: &str) -> bool {
    ["Basic authentication is disabled", "BasicAuthBlocked", "LOGINDISABLED"].iter().any(|words| text.contains(words))
}

async fn say_goodbye(session: Session) {
    if let Err(error) = session.logout().await {
        tracing::debug!(%error, "did not log out");
    }
}

impl Lease<'_> {
    /// Puts the session back for others.
    pub fn give_back(self) {
        self.pool.idle.borrow_mut().push(Rested(self.open, Instant::now()));
    }

    /// Puts the session back if `result` shows that it is still in step, and returns the result.
    pub(super) fn done<T>(self, result: Result<T, Error>) -> Result<T, Error> {
        let in_step = match &result {
            Ok(_) => true,
            Err(Error::Imap(imap::Error::TokenExpired { .. })) => {
                if let (Key::Tokens(tokens), Some(token)) = (&self.pool.key, &self.open.token) {
                    tokens.is_spent(token);
                }
                false
            }
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
        &self.open.session
    }
}

impl DerefMut for Lease<'_> {
    fn deref_mut(&mut self) -> &mut Session {
        &mut self.open.session
    }
}
