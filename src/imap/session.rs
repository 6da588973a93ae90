//! A signed-in connection, and the commands that are too small for a file of their own.

use std::sync::{Arc, Weak};

use tracing::warn;

use super::connect::Dialed;
use super::connection::{Capabilities, Connection};
use super::name::Namespace;
use super::select::Selected;
use super::sign_in::{Credentials, sign_in};
use super::{Connect, Cutter, Error, Quirks, RawName, Way};
use crate::model::MailboxName;
use crate::step;

/// A signed-in connection to a server.
///
/// Whoever awaits a command drives the connection; there is no task behind it. **Cancelling**: a future of a session
/// that is dropped before it ended leaves answers unread, so every later call fails with [`Error::Closed`]. The one
/// that may be stopped is [`Session::idle`], by its own argument. After an error of [`Scope::Account`](super::Scope) or
/// [`Error::TooLarge`] the session is of no more use; after all others it is.
///
/// Numbers of messages in the selected mailbox follow what the server says meanwhile, in the order in which it says it.
#[derive(Debug)]
pub struct Session {
    pub(super) connection: Connection,
    pub(super) namespace: Namespace,
    /// QRESYNC is enabled (RFC 7162 §3.2.3).
    pub(super) qresync: bool,
    pub(super) cutter: Option<Arc<Cutter>>,
    pub(super) way: Option<Way>,
}

impl Session {
    /// Connects and signs in: greeting, CAPABILITY, LOGIN or AUTHENTICATE, and then ENABLE, ID and NAMESPACE where the
    /// server has them.
    ///
    /// Where the sign-in leads to no mailbox over IPv6, it is made once more over IPv4; if that helps, the
    /// [`Route`](super::Route) says so from then on.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Certificate`], [`Error::Configuration`], [`Error::SignIn`],
    /// [`Error::Unavailable`], [`Error::Throttled`], [`Error::NotConnected`], or those of a connection that breaks.
    pub async fn open(connect: &Connect, credentials: &Credentials) -> Result<Self, Error> {
        let dialed = connect.dial(connect.route.is_ipv4_only()).await?;
        let over_ipv6 = dialed.way.over_ipv6;
        match Self::sign_in(dialed, connect, credentials).await {
            // More than once this was a fault of Microsoft's on the one way and not on the other.
            Err(error @ Error::NotConnected { .. }) if over_ipv6 => {
                let Ok(other_way) = connect.dial(true).await else { return Err(error) };
                let session = Self::sign_in(other_way, connect, credentials).await?;
                warn!("the server opens the mailbox over IPv4 only; IPv6 is left alone for some hours");
                connect.route.set_ipv4_only(true);
                Ok(session)
            }
            result => result,
        }
    }

    async fn sign_in(dialed: Dialed, connect: &Connect, credentials: &Credentials) -> Result<Self, Error> {
        let mut session = sign_in(dialed.stream, connect, credentials).await?;
        (session.cutter, session.way) = (Some(Arc::new(dialed.cutter)), Some(dialed.way));
        Ok(session)
    }

    /// Returns what breaks the connection while somebody waits for it.
    #[must_use]
    pub fn cutter(&self) -> Option<Weak<Cutter>> {
        self.cutter.as_ref().map(Arc::downgrade)
    }

    /// Returns the way that the connection took; none for a stream that was given.
    #[must_use]
    pub fn way(&self) -> Option<&Way> {
        self.way.as_ref()
    }

    /// Returns what the server can do, less what the provider is known not to be able to.
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        &self.connection.capabilities
    }

    /// Returns what the provider does differently.
    #[must_use]
    pub fn quirks(&self) -> &Quirks {
        &self.connection.quirks
    }

    /// Returns how many bytes came from the server.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.connection.wire.traffic().0
    }

    /// Returns how many bytes went to the server.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.connection.wire.traffic().1
    }

    /// Returns the selected mailbox, with as many messages as there are by now.
    #[must_use]
    pub fn selected(&self) -> Option<&Selected> {
        self.connection.selected.as_ref()
    }

    /// Returns the server's name for a mailbox that is to be created.
    ///
    /// # Errors
    /// [`Error::Name`] if the server cannot have such a mailbox.
    pub fn raw_name(&self, name: &MailboxName) -> Result<RawName, Error> {
        self.namespace.raw_name(name)
    }

    /// Creates a mailbox (RFC 3501 §6.3.3). That it is there already is no error.
    ///
    /// # Errors
    /// [`Error::Refused`], or those of a connection that breaks.
    pub async fn create(&mut self, mailbox: &RawName) -> Result<(), Error> {
        let command = self.connection.command("CREATE").string(mailbox.as_bytes());
        step::before("create");
        match self.connection.run(command, Some(mailbox)).await {
            Err(Error::Refused { code, text, .. }) if code == "ALREADYEXISTS" || text.contains("already exists") => {
                Ok(())
            }
            other => other.map(|_| ()),
        }
    }

    /// Renames a mailbox (RFC 3501 §6.3.5). INBOX is not renamed: its messages would be moved.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Name`] for INBOX, or those of a connection that breaks.
    pub async fn rename(&mut self, from: &RawName, to: &RawName) -> Result<(), Error> {
        if from.is_inbox() {
            let reason = "INBOX cannot be renamed, only emptied".to_owned();
            return Err(Error::Name { name: from.to_string(), reason });
        }
        let command = self.connection.command("RENAME").string(from.as_bytes()).string(to.as_bytes());
        step::before("rename");
        self.connection.run(command, Some(from)).await.map(|_| ())
    }

    /// Leaves the selected mailbox without expunging anything (UNSELECT, RFC 3691). Without that extension nothing is
    /// sent, for CLOSE would expunge.
    ///
    /// # Errors
    /// Those of a connection that breaks.
    pub async fn unselect(&mut self) -> Result<(), Error> {
        if self.connection.selected.is_some() && self.connection.capabilities.has("UNSELECT") {
            let command = self.connection.command("UNSELECT");
            self.connection.run(command, None).await?;
            self.connection.selected = None;
        }
        Ok(())
    }

    /// Asks for nothing, so that the server can tell what is new (RFC 3501 §6.1.2).
    ///
    /// # Errors
    /// Those of a connection that breaks.
    pub async fn noop(&mut self) -> Result<(), Error> {
        let command = self.connection.command("NOOP");
        self.connection.run(command, None).await.map(|_| ())
    }

    /// Says goodbye (RFC 3501 §6.1.3).
    ///
    /// # Errors
    /// Those of a connection that breaks before the answer came; nothing is lost by that.
    pub async fn logout(mut self) -> Result<(), Error> {
        let command = self.connection.command("LOGOUT");
        self.connection.run(command, None).await.map(|_| ())
    }

    /// Returns the name of the selected mailbox, for the commands that need one.
    ///
    /// # Errors
    /// [`Error::Configuration`] if none is.
    pub(super) fn here(&self) -> Result<RawName, Error> {
        let selected = self.connection.selected.as_ref();
        selected.map(|s| s.raw.clone()).ok_or_else(|| Error::Configuration("no mailbox is selected".to_owned()))
    }
}
