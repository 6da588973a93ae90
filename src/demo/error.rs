//! Why a demonstration ends early.

use std::fmt;
use std::io;

use crate::auth::TokenError;
use crate::config;

/// Why a demonstration ends early: a sentence.
#[derive(Debug)]
pub struct Error(pub String);

impl Error {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(super) fn doing(what: impl fmt::Display) -> impl FnOnce(io::Error) -> Self {
        move |error| Self(format!("cannot {what}: {error}"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl From<config::Error> for Error {
    fn from(error: config::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<TokenError> for Error {
    fn from(error: TokenError) -> Self {
        Self(error.to_string())
    }
}
