//! What stands for the Secret Service in a build without the feature `keyring`: there is none.

use zeroize::Zeroizing;

use super::store::StoreError;

/// The place of an account's secret in a Secret Service that there is not.
#[derive(Clone, Debug)]
pub(super) struct Keyring;

fn none<T>() -> Result<T, StoreError> {
    Err(StoreError::NoKeyring { why: "this postkeep was built without the feature `keyring`".to_owned() })
}

impl Keyring {
    pub(super) fn new(_account: &str, _state_dir: &std::path::Path) -> Self {
        Self
    }

    /// # Errors
    /// [`StoreError::NoKeyring`].
    pub(super) fn probe(&self) -> Result<(), StoreError> {
        none()
    }

    /// # Errors
    /// [`StoreError::NoKeyring`].
    pub(super) fn read(&self) -> Result<Option<Zeroizing<String>>, StoreError> {
        none()
    }

    /// # Errors
    /// [`StoreError::NoKeyring`].
    pub(super) fn replace(&self, _text: &str) -> Result<(), StoreError> {
        none()
    }

    /// # Errors
    /// [`StoreError::NoKeyring`].
    pub(super) fn remove(&self) -> Result<(), StoreError> {
        none()
    }
}
