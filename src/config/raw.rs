//! What the file may say: every key, unchecked.

use serde::Deserialize;
use toml::Spanned;

use super::units::{Pin, Size, Span};
use super::{Direction, Layout, LineEndings, OnLocal, OnServer, Provider, TlsMode, TokenStore};

/// A value with its place.
pub(super) type At<T> = Option<Spanned<T>>;

/// The whole file.
#[derive(Debug, Default)]
pub(super) struct Raw {
    pub(super) accounts: Vec<(Spanned<String>, RawAccount)>,
    pub(super) hooks: RawHooks,
    pub(super) daemon: RawDaemon,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum AuthKind {
    Password,
    OAuth2,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawAccount {
    pub(super) provider: Option<Provider>,
    pub(super) host: At<String>,
    pub(super) port: At<u16>,
    pub(super) tls: At<TlsMode>,
    pub(super) tls_ca_file: At<String>,
    pub(super) tls_pin: Vec<Pin>,
    pub(super) username: At<String>,
    pub(super) email: At<String>,
    pub(super) auth: At<AuthKind>,
    pub(super) password_command: At<Vec<String>>,
    pub(super) password_file: At<String>,
    pub(super) password_credential: At<String>,
    pub(super) maildir: At<String>,
    pub(super) layout: Layout,
    pub(super) line_endings: LineEndings,
    pub(super) mailboxes: At<Vec<Spanned<String>>>,
    pub(super) watch: Option<Vec<String>>,
    pub(super) connections: At<u64>,
    pub(super) poll_interval: At<Span>,
    pub(super) max_message_size: At<Size>,
    pub(super) direction: Direction,
    pub(super) append_retry_after: At<Span>,
    pub(super) sweep_after: Option<Span>,
    pub(super) compress: bool,
    pub(super) deletions: RawDeletions,
    pub(super) oauth: At<RawOAuth>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawDeletions {
    pub(super) on_server: OnServer,
    pub(super) on_local: OnLocal,
    pub(super) graveyard: Option<Span>,
    pub(super) guard_count: Option<u64>,
    pub(super) guard_share: At<f64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawOAuth {
    pub(super) client_id: Option<String>,
    pub(super) tenant: At<String>,
    pub(super) scope: Option<String>,
    pub(super) authorize_url: At<String>,
    pub(super) token_url: At<String>,
    pub(super) device_url: At<String>,
    pub(super) token_store: TokenStore,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawHooks {
    pub(super) changed: At<Vec<String>>,
    pub(super) new_mail: At<Vec<String>>,
    pub(super) attention: At<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawDaemon {
    pub(super) state_dir: At<String>,
    pub(super) socket: At<String>,
    pub(super) metrics_file: At<String>,
}
