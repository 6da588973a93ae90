//! A secret in the Secret Service of the desktop (freedesktop.org Secret Service API 0.2): GNOME Keyring, KWallet, KeePassXC.
//!
//! Every function blocks, and makes a connection of its own: it is needed once an hour.

use std::collections::HashMap;
use std::time::Duration;

use secret_service::{Collection, EncryptionType, Error, Item, SecretService};
use zeroize::Zeroizing;

use super::store::StoreError;
use crate::step;

/// The user may have to unlock it.
const LIMIT: Duration = Duration::from_secs(60);

/// The place of an account's secret in the Secret Service.
#[derive(Clone, Debug)]
pub(super) struct Keyring {
    account: String,
    /// Two configurations may both have an account of that name.
    state_dir: String,
}

impl Keyring {
    pub(super) fn new(account: &str, state_dir: &std::path::Path) -> Self {
        Self { account: account.to_owned(), state_dir: state_dir.display().to_string() }
    }

    fn attributes(&self) -> HashMap<&str, &str> {
        HashMap::from([("application", "postkeep"), ("account", &self.account), ("state_dir", &self.state_dir)])
    }

    /// Makes sure that it can be used; asks the user to unlock it if it is locked.
    ///
    /// # Errors
    /// [`StoreError::NoKeyring`] if there is none, [`StoreError::Keyring`] if it cannot be used.
    pub(super) fn probe(&self) -> Result<(), StoreError> {
        with_service(async |service| unlocked(service).await.map(|_| ()))
    }

    /// Returns the secret, if there is one.
    ///
    /// # Errors
    /// As [`Self::probe`].
    pub(super) fn read(&self) -> Result<Option<Zeroizing<String>>, StoreError> {
        with_service(async |service| {
            let Some(item) = self.item(service).await? else { return Ok(None) };
            let secret = Zeroizing::new(item.get_secret().await?);
            let text = std::str::from_utf8(&secret).map_err(|_| Error::Crypto("it is not UTF-8"))?;
            Ok(Some(Zeroizing::new(text.to_owned())))
        })
    }

    /// Puts the secret in the place of the one before.
    ///
    /// # Errors
    /// As [`Self::probe`].
    pub(super) fn replace(&self, text: &str) -> Result<(), StoreError> {
        with_service(async |service| {
            step::before("write token");
            match self.item(service).await? {
                Some(item) => item.set_secret(text.as_bytes(), "text/plain").await,
                None => {
                    let label = format!("postkeep: {}", self.account);
                    let collection = unlocked(service).await?;
                    let item = collection.create_item(&label, self.attributes(), text.as_bytes(), true, "text/plain");
                    item.await.map(|_| ())
                }
            }
        })
    }

    /// Removes the secret, if there is one.
    ///
    /// # Errors
    /// As [`Self::probe`].
    pub(super) fn remove(&self) -> Result<(), StoreError> {
        with_service(async |service| match self.item(service).await? {
            Some(item) => item.delete().await,
            None => Ok(()),
        })
    }

    async fn item<'s>(&self, service: &'s SecretService<'_>) -> Result<Option<Item<'s>>, Error> {
        let found = service.search_items(self.attributes()).await?;
        match (found.unlocked.into_iter().next(), found.locked.into_iter().next()) {
            (Some(item), _) => Ok(Some(item)),
            (None, Some(item)) => {
                item.unlock().await?;
                Ok(Some(item))
            }
            (None, None) => Ok(None),
        }
    }
}

async fn unlocked<'s>(service: &'s SecretService<'_>) -> Result<Collection<'s>, Error> {
    let collection = service.get_default_collection().await?;
    if collection.is_locked().await? {
        collection.unlock().await?;
    }
    Ok(collection)
}

/// Connects and does something, on a runtime of its own: what is saved must be saved even if the other one is ending.
fn with_service<T>(work: impl AsyncFnOnce(&SecretService<'_>) -> Result<T, Error>) -> Result<T, StoreError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| StoreError::Keyring { why: error.to_string() })?;
    let all = async {
        let absent = |error: Error| StoreError::NoKeyring { why: error.to_string() };
        let service = SecretService::connect(EncryptionType::Dh).await.map_err(absent)?;
        work(&service).await.map_err(|error| match error {
            // Without a default collection, one would have to be made, and the user asked for a new password.
            Error::NoResult => absent(error),
            error => StoreError::Keyring { why: error.to_string() },
        })
    };
    let late = |_| StoreError::Keyring { why: format!("no answer within {} seconds", LIMIT.as_secs()) };
    runtime.block_on(async { tokio::time::timeout(LIMIT, all).await }).map_err(late)?
}
