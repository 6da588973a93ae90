//! The disk: names, scans, durable delivery.
//!
//! An account's [`Root`] holds a [`Maildir`] for each mailbox. A [`Scan`] tells what is in one, with proof that nothing
//! was missed; a [`Delivery`] puts messages into one, durably and in batches; flags are file names, so a change of
//! flags is a rename; what is removed goes to the [`Graveyard`]. Everything below a root is opened relative to it and
//! through no symbolic link. Nothing here knows about servers or the database, and everything here blocks.

mod change;
mod content;
mod deliver;
mod error;
mod graveyard;
mod hasher;
mod keywords;
mod locate;
mod marker;
mod name;
mod path;
mod peek;
mod relocate;
mod root;
mod scan;
mod store;
mod sys;
#[cfg(test)]
mod tests;
mod watch;
mod witness;

pub use change::{FlagJob, Located, Refused};
pub use content::{LineEndings, Message, Source};
pub use deliver::{Delivery, Incoming, Written};
pub use error::Error;
pub use graveyard::Graveyard;
pub use hasher::{ContentHasher, header_digest, unmarked_key};
pub use keywords::Keywords;
pub use marker::Marker;
pub use name::{FileRef, letters_of, unique_name, unique_of};
pub use path::Layout;
pub use peek::Peek;
pub use relocate::RemoveJob;
pub use root::Root;
pub use scan::{Entry, Foreign, Scan, Stamp};
pub use store::{Keyed, Maildir};
pub use watch::{Fate, Happened, Watch};
