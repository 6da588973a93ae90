//! Decides what makes both sides agree, and does it.
