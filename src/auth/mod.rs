//! Where secrets come from.

mod password;

pub use password::{Error, PasswordSource};
