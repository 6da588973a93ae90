//! What `provider = "outlook"` stands for.

use std::path::PathBuf;

use super::paths::Env;

/// What provider "outlook" fills in where the configuration has nothing else.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Outlook {
    pub(super) host: String,
    /// The same service under the name that Microsoft documents for Exchange Online.
    pub(super) other_hosts: Vec<String>,
    /// Where TLS is elsewhere than everywhere.
    pub(super) port: Option<u16>,
    /// A CA to trust.
    pub(super) ca_file: Option<PathBuf>,
    /// What stands before the tenant in the addresses of the sign-in.
    pub(super) authority: String,
}

impl Outlook {
    /// Returns Microsoft's service.
    ///
    /// With debug assertions, `POSTKEEP_OUTLOOK` in the environment names another in its place, which a test simulates:
    /// `host|port|CA file|address of the sign-in`.
    #[cfg(debug_assertions)]
    pub(super) fn new(env: Env<'_>) -> Self {
        let simulated = || {
            let text = env("POSTKEEP_OUTLOOK")?.into_string().ok()?;
            let mut words = text.split('|').map(ToOwned::to_owned);
            Some(Self {
                host: words.next()?,
                other_hosts: Vec::new(),
                port: words.next()?.parse().ok(),
                ca_file: Some(words.next()?.into()),
                authority: words.next()?,
            })
        };
        simulated().unwrap_or_else(Self::microsoft)
    }

    /// Returns Microsoft's service.
    #[cfg(not(debug_assertions))]
    pub(super) fn new(_: Env<'_>) -> Self {
        Self::microsoft()
    }

    fn microsoft() -> Self {
        Self {
            host: "imap-mail.outlook.com".to_owned(),
            other_hosts: vec!["outlook.office365.com".to_owned()],
            port: None,
            ca_file: None,
            authority: "https://login.microsoftonline.com".to_owned(),
        }
    }
}
