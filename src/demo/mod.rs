//! What `postkeep demo` shows: an account on a simulated Outlook.com on loopback, in which things happen on both sides.
//!
//! [`Stage`] is the account with both of its sides, [`ACTS`] is what happens, `message` writes the mail.

mod acts;
mod error;
mod message;
mod stage;

pub use acts::{ACTS, Act, Side, greeting};
pub use error::Error;
pub use stage::{Stage, Sums};
