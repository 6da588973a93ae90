//! Maildirs as a whole: what is written is read again, whatever happens meanwhile.
