//! Decides what makes both sides agree, and does it.

pub mod flags;
pub mod guard;
pub mod moves;
pub mod op;
pub mod plan;
pub mod rebind;
pub mod tree;
