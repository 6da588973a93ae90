//! Decides what makes both sides agree, and does it.
//!
//! The decisions are pure functions: [`plan`], [`guard`], [`flags`], [`rebind`], [`moves`], [`tree`], [`root`]. The rest
//! carries them out: `mirror` keeps an account open, `pass` goes over it in rounds (`round`), `cycle` over one of its
//! mailboxes, `observe` and `contact` compare
//! what is there with the base, `execute` does what a plan says.

mod again;
mod answers;
mod approve;
mod burial;
pub mod chains;
mod contact;
mod cycle;
mod error;
mod execute;
pub mod flags;
pub mod guard;
mod ledger;
mod lock;
mod mailboxes;
mod mirror;
pub mod moves;
mod names;
mod news;
mod observe;
pub mod op;
mod pass;
pub mod plan;
mod pool;
pub mod rebind;
mod relocations;
mod renaming;
pub mod report;
mod retention;
mod reuse;
pub mod root;
mod round;
mod service;
mod there;
pub mod tree;
mod visit;

pub use approve::approve;
pub use error::Error;
pub use mirror::{Mirror, sync};
pub use pool::Lease;
pub use visit::Visit;
