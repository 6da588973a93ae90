//! The base in SQLite: links, cursors, journal; the only writer.
