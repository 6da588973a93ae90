//! The server: sessions, commands, observation.
