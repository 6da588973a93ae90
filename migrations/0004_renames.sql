-- Mailboxes that change their names in a chain or in a circle, so that one needs a name that another still has.
--
--   renaming   a row is a mailbox that has a new name on one side, and is being given it on the other

-- The inode number of its cur/: a maildir that was renamed still has it. NULL until it was looked at.
ALTER TABLE mailbox ADD COLUMN directory INTEGER;

-- All rows are of one side, and are gone when the names in mailbox are the new ones. Until away is 1 in all of them, each
-- mailbox is on its way to a name that nothing else has; from then on, to its new one.
CREATE TABLE renaming (
    mailbox INTEGER NOT NULL PRIMARY KEY REFERENCES mailbox (id),
    side    TEXT    NOT NULL,          -- where it is renamed
    name    TEXT    NOT NULL UNIQUE,   -- these three as in mailbox, once it is
    raw     BLOB    NOT NULL UNIQUE,
    path    BLOB    NOT NULL UNIQUE,
    away    INTEGER NOT NULL,
    CONSTRAINT renaming_side CHECK (side IN ('local', 'remote')),
    CONSTRAINT renaming_away CHECK (away IN (0, 1))
) STRICT;
