//! Where passwords and access tokens come from.
//!
//! Passwords are read anew at each sign-in. Access tokens (OAuth 2.0, RFC 6749) are handed out for a refresh token, which
//! a [`Login`] gets once, with the user at a browser, and which is kept between runs; a [`TokenSource`] turns it into
//! access tokens, which stay in memory.
//!
//! `grant` asks the authorization server, over `http`; `loopback` is where the browser comes back to, and `page` what it
//! shows then; `kept` is what is kept, `store` where: in a `file`, or in the Secret Service (`keyring`).

mod access;
mod clock;
mod error;
mod file;
mod grant;
mod http;
mod kept;
#[cfg(feature = "keyring")]
mod keyring;
#[cfg(not(feature = "keyring"))]
#[path = "no_keyring.rs"]
mod keyring;
mod login;
mod loopback;
mod name;
mod page;
mod password;
mod source;
mod store;

pub use error::TokenError;
pub use login::{DevicePrompt, Login, SignedIn};
pub use password::{Error, PasswordSource};
pub use source::{AccessToken, TokenSource};
pub use store::{Place, StoreError};

#[cfg(test)]
mod tests;
