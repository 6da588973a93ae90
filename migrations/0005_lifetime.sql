-- How long removed messages have really been in the graveyard, whatever the clock on the wall said meanwhile.
--
--   lifetime  at most one row: the time that is known to have passed, and what the clocks said when that was last counted
--   grave     a row is a day of the graveyard that was found to be over, so that nothing is added to it any more

CREATE TABLE lifetime (
    id         INTEGER NOT NULL PRIMARY KEY,
    boot       TEXT    NOT NULL,   -- which boot of the machine it was; empty where the system does not tell
    boot_clock INTEGER NOT NULL,   -- how long the machine had been on, in seconds
    wall       INTEGER NOT NULL,   -- what the clock on the wall said
    counted    INTEGER NOT NULL,   -- the seconds that have passed for certain since the first of these rows
    CONSTRAINT lifetime_one     CHECK (id = 1),
    CONSTRAINT lifetime_counted CHECK (counted >= 0)
) STRICT;

CREATE TABLE grave (
    day   TEXT    NOT NULL PRIMARY KEY,   -- as its directory is called: YYYY-MM-DD
    since INTEGER NOT NULL,               -- what was counted when it was first found to be over
    CONSTRAINT grave_day   CHECK (day GLOB '*-[0-1][0-9]-[0-3][0-9]'),
    CONSTRAINT grave_since CHECK (since >= 0)
) STRICT;
