-- What a pass left to be told: why the account could not be mirrored at all, and which mailbox goes round in circles.

-- The last pass that ended as a whole before it was through; NULL since one came to its end. All three or none.
ALTER TABLE account ADD COLUMN failed_at INTEGER;   -- seconds since 1970
ALTER TABLE account ADD COLUMN failure TEXT;        -- what happened, for the user
ALTER TABLE account ADD COLUMN failed_as TEXT       -- what kind of end it was
    CONSTRAINT account_failure CHECK ((failed_at IS NULL) = (failure IS NULL) AND (failed_at IS NULL) = (failed_as IS NULL))
    CONSTRAINT account_failed_as CHECK (failed_as IN ('partial', 'sign_in', 'held', 'unreachable'));

-- Why a mailbox is held as a whole: 0 its maildir is missing, 1 the server renumbered it too often.
ALTER TABLE held_mailbox ADD COLUMN cause INTEGER NOT NULL DEFAULT 0
    CONSTRAINT held_mailbox_cause CHECK (cause IN (0, 1));

-- These are counted over a day.
CREATE INDEX journal_renumberings ON journal (mailbox, at) WHERE kind = 'renumber';
