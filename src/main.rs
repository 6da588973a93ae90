//! The postkeep program.

fn main() {}
