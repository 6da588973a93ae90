//! The daemon: one loop for each account, and around them what they share: control, signals, systemd, suspension, network.
//!
//! All of it runs on one thread; what blocks is done on others. Decisions are made by functions that know no clock and do
//! nothing: `agenda` what is looked at next, `retry` when again after a failure. A task that panics ends the process.

mod account;
mod agenda;
mod clock;
mod control;
mod hooks;
mod live;
mod local;
mod metrics;
mod network;
mod probe;
mod remote;
mod retry;
mod sleep;
mod supervisor;
mod systemd;

pub use control::{Answer, Client, Request};
pub use live::{Live, LiveAccount, LiveMailbox, State, Total};
pub use probe::{Protection, protections};
pub use supervisor::{Error, Start, run};
