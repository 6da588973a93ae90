-- What a server without a counter of changes, and with bad days, needs to be remembered of it.
--
--   service   exactly one row: how the server treats the account
--   withheld  a row is a message that the server lists and does not give: its link is skipped until it does

-- One row.
CREATE TABLE service (
    id                  INTEGER NOT NULL PRIMARY KEY,
    quiet_until         INTEGER,            -- until when nothing may be tried
    quiet_why           TEXT,               -- and why
    not_connected_since INTEGER,            -- since when sign-ins have led to no mailbox
    not_connected       INTEGER NOT NULL,   -- how many have since then
    ipv4_until          INTEGER,            -- until when only IPv4 is used
    CONSTRAINT service_one       CHECK (id = 1),
    CONSTRAINT service_quiet     CHECK ((quiet_until IS NULL) = (quiet_why IS NULL)),
    CONSTRAINT service_connected CHECK (not_connected >= 0 AND (not_connected_since IS NULL) = (not_connected = 0))
) STRICT;

INSERT INTO service (id, quiet_until, quiet_why, not_connected_since, not_connected, ipv4_until)
VALUES (1, NULL, NULL, NULL, 0, NULL);

-- Asked for again at next_at, with growing pauses.
CREATE TABLE withheld (
    link    INTEGER NOT NULL PRIMARY KEY REFERENCES link (id) ON DELETE CASCADE,
    tries   INTEGER NOT NULL,
    next_at INTEGER NOT NULL,
    CONSTRAINT withheld_tries CHECK (tries >= 1)
) STRICT;

-- What was given is withheld no more.
CREATE TRIGGER withheld_given AFTER UPDATE OF state ON link WHEN NEW.state <> 3
BEGIN
    DELETE FROM withheld WHERE link = NEW.id;
END;

-- When the flags of all messages were last looked at, in whatever way.
ALTER TABLE mailbox ADD COLUMN swept_at INTEGER;
-- SEARCH was found to say the same as a listing, so a sweep can be trusted.
ALTER TABLE mailbox ADD COLUMN sweeps INTEGER NOT NULL DEFAULT 0 CONSTRAINT mailbox_sweeps CHECK (sweeps IN (0, 1));
