//! The disk: names, scans, durable delivery.
