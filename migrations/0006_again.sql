-- What the server refused for now is tried again, in both directions, with growing pauses.
--
--   again  a row is a message about which the server refused something: to give it, to take it, to change its flags, to move
--          or to remove it

CREATE TABLE again (
    link    INTEGER NOT NULL PRIMARY KEY REFERENCES link (id) ON DELETE CASCADE,
    tries   INTEGER NOT NULL,
    next_at INTEGER,              -- seconds since 1970; NULL: not before somebody asks, since it will be refused again
    why     TEXT    NOT NULL,     -- the server's words
    CONSTRAINT again_tries CHECK (tries >= 1)
) STRICT;

INSERT INTO again (link, tries, next_at, why)
SELECT link, tries, next_at, 'it is listed, but not given' FROM withheld;

DROP TRIGGER withheld_given;
DROP TABLE withheld;

-- Both sides have it, or agree on its flags again: so it was not refused this time.
CREATE TRIGGER again_done AFTER UPDATE OF state, flags ON link WHEN NEW.state = 0
BEGIN
    DELETE FROM again WHERE link = NEW.id;
END;
