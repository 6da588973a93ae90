-- The base of one account: what the server and the maildirs had when they last agreed.
--
--   account       exactly one row: whose maildirs these are, and how the last pass ended
--   mailbox       a row is a mailbox that exists, or existed, on at least one side: how far each side was observed
--   link          a row is one message: its place on both sides, and the state that both last agreed on
--   held          a row is a removal that the guard holds back until the user approves it
--   held_mailbox  a row is a mailbox that is held as a whole, and why
--   journal       a row is something that was done to a message, when and why; nothing is decided by its texts
--
-- A time is in seconds since 1970, in the journal in milliseconds. A truth is 0 or 1. A name of a file or of the server
-- is a BLOB, because it need not be text. Every CHECK has a name, so that an error says which rule was broken.

-- Numbers are never given twice (AUTOINCREMENT): a plan may still hold the number of a row that is gone.

-- One row. generation and nonce are those of the marker file in the root of the maildirs; 0 and '' until there is one.
CREATE TABLE account (
    id                 INTEGER NOT NULL PRIMARY KEY,
    generation         INTEGER NOT NULL,
    nonce              TEXT    NOT NULL,
    pending_generation INTEGER,            -- the marker that is being written; moves up once it is
    pending_nonce      TEXT,
    clean              INTEGER NOT NULL,   -- 0 while a pass that acts is going on, so 0 after a crash
    scope              TEXT    NOT NULL,   -- a digest of the filter and the mapping that the base was made under
    CONSTRAINT account_one        CHECK (id = 1),
    CONSTRAINT account_generation CHECK (generation >= 0),
    CONSTRAINT account_pending    CHECK ((pending_generation IS NULL) = (pending_nonce IS NULL)
                                         AND coalesce(pending_generation, 0) >= 0),
    CONSTRAINT account_clean      CHECK (clean IN (0, 1))
) STRICT;

INSERT INTO account (id, generation, nonce, pending_generation, pending_nonce, clean, scope)
VALUES (1, 0, '', NULL, NULL, 1, '');

-- A mailbox. Its cursor is set when all that an observation named was agreed, and then to what the server said before.
CREATE TABLE mailbox (
    id              INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    name            TEXT    NOT NULL UNIQUE,   -- as users see it
    raw             BLOB,                      -- as the server wrote it; NULL until it has it
    path            BLOB    UNIQUE,            -- below the root, empty for the root; NULL: no maildir yet
    uid_validity    INTEGER,                   -- the cursor: these five, or none of them
    uid_next        INTEGER,
    highest_mod_seq INTEGER,                   -- NULL also where the server has none
    messages        INTEGER,
    unseen          INTEGER,                   -- NULL also where STATUS did not tell
    new_mtime       INTEGER,                   -- the stamp of the last complete scan: the two directories; all or none
    new_inode       INTEGER,
    cur_mtime       INTEGER,
    cur_inode       INTEGER,
    listed_at       INTEGER,                   -- when the server's messages were last listed in full
    missing_since   INTEGER,                   -- since when LIST has not named it
    last_complete   INTEGER,                   -- when a pass over it was last complete on both sides
    problem         TEXT,                      -- what status shows
    must_list       INTEGER NOT NULL,          -- the next observation must be a full one
    must_scan       INTEGER NOT NULL,          -- the next scan must not trust the stamp
    CONSTRAINT mailbox_name CHECK (length(name) > 0),
    CONSTRAINT mailbox_raw  CHECK (length(raw) > 0),
    -- A path never leaves the root: it is not absolute, and no component of it is '..'.
    CONSTRAINT mailbox_path CHECK (substr(path, 1, 1) <> x'2f' AND instr(path, x'00') = 0
                                   AND path <> x'2e2e' AND substr(path, 1, 3) <> x'2e2e2f'
                                   AND instr(path, x'2f2e2e2f') = 0
                                   AND (length(path) < 3 OR substr(path, -3) <> x'2f2e2e')),
    CONSTRAINT mailbox_cursor CHECK ((uid_validity IS NULL) = (uid_next IS NULL)
                                     AND (uid_validity IS NULL) = (messages IS NULL)
                                     AND (uid_validity IS NOT NULL OR (highest_mod_seq IS NULL AND unseen IS NULL))),
    CONSTRAINT mailbox_uid_validity    CHECK (uid_validity BETWEEN 1 AND 4294967295),
    CONSTRAINT mailbox_uid_next        CHECK (uid_next BETWEEN 1 AND 4294967295),
    CONSTRAINT mailbox_highest_mod_seq CHECK (highest_mod_seq >= 1),
    CONSTRAINT mailbox_messages        CHECK (messages BETWEEN 0 AND 4294967295),
    CONSTRAINT mailbox_unseen          CHECK (unseen BETWEEN 0 AND 4294967295),
    CONSTRAINT mailbox_stamp CHECK ((new_mtime IS NULL) = (new_inode IS NULL)
                                    AND (new_mtime IS NULL) = (cur_mtime IS NULL)
                                    AND (new_mtime IS NULL) = (cur_inode IS NULL)),
    CONSTRAINT mailbox_must CHECK (must_list IN (0, 1) AND must_scan IN (0, 1))
) STRICT;

-- A message. state says how far it is:
--   0 synced       both sides have it, and agreed on these flags
--   1 downloading  intent: the file will have this name and these flags
--   2 uploading    intent: the copy on the server, if there is one, has the UID uid_next or a later one
--   3 skipped      it cannot be transferred, and why; it is on one side at least
-- A mailbox that has links cannot be deleted: each of them has to be forgotten for a reason of its own.
CREATE TABLE link (
    id            INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    mailbox       INTEGER NOT NULL REFERENCES mailbox (id),
    state         INTEGER NOT NULL,
    uid           INTEGER,
    name          BLOB,               -- the unique name of the file: what stands before the ':'
    flags         INTEGER NOT NULL,   -- a bit each, by their Maildir letters: D 1, F 2, P 4, R 8, S 16, T 32
    keywords      TEXT    NOT NULL,   -- a space between two
    digest        BLOB,               -- SHA-256 of the message as served; with the next two, or not at all
    header        BLOB,               -- SHA-256 of its header
    size          INTEGER,            -- in bytes, as served
    internal_date INTEGER,
    inode         INTEGER,            -- 64 bits, so it may read as a negative number
    uid_next      INTEGER,            -- of an upload: UIDNEXT when the intent was written
    since         INTEGER,            -- of an upload: when that was
    reason        INTEGER,            -- of a skipped one: 0 too large, 1 refused by the server, 2 not usable, 3 kept by policy
    reason_text   TEXT,               -- the size in bytes for 0, else words
    UNIQUE (mailbox, uid),
    UNIQUE (mailbox, name),
    CONSTRAINT link_state    CHECK (state BETWEEN 0 AND 3),
    CONSTRAINT link_two_ends CHECK (state NOT IN (0, 1) OR (uid IS NOT NULL AND name IS NOT NULL)),
    CONSTRAINT link_upload   CHECK (CASE WHEN state = 2
                                    THEN uid IS NULL AND name IS NOT NULL AND uid_next IS NOT NULL AND since IS NOT NULL
                                    ELSE uid_next IS NULL AND since IS NULL END),
    CONSTRAINT link_skipped  CHECK (CASE WHEN state = 3
                                    THEN (uid IS NOT NULL OR name IS NOT NULL) AND flags = 0 AND keywords = ''
                                         AND reason IS NOT NULL AND reason_text IS NOT NULL
                                    ELSE reason IS NULL AND reason_text IS NULL END),
    CONSTRAINT link_uid      CHECK (uid BETWEEN 1 AND 4294967295),
    CONSTRAINT link_uid_next CHECK (uid_next BETWEEN 1 AND 4294967295),
    CONSTRAINT link_name     CHECK (length(name) > 0),
    CONSTRAINT link_flags    CHECK (flags BETWEEN 0 AND 63),
    CONSTRAINT link_content  CHECK ((digest IS NULL) = (header IS NULL) AND (digest IS NULL) = (size IS NULL)),
    CONSTRAINT link_digest   CHECK (length(digest) = 32),
    CONSTRAINT link_header   CHECK (length(header) = 32),
    CONSTRAINT link_size     CHECK (size >= 0),
    CONSTRAINT link_reason   CHECK (reason BETWEEN 0 AND 3)
) STRICT;

-- The few that are not synced are asked for in every pass.
CREATE INDEX link_unfinished ON link (mailbox, state) WHERE state <> 0;

-- A removal that waits. side is the one that would lose the message.
CREATE TABLE held (
    link     INTEGER NOT NULL PRIMARY KEY REFERENCES link (id) ON DELETE CASCADE,
    side     TEXT    NOT NULL,
    at       INTEGER NOT NULL DEFAULT (unixepoch()),
    approved INTEGER NOT NULL DEFAULT 0,
    CONSTRAINT held_side     CHECK (side IN ('local', 'remote')),
    CONSTRAINT held_approved CHECK (approved IN (0, 1))
) STRICT;

-- A mailbox that waits as a whole, for example because its directory is missing.
CREATE TABLE held_mailbox (
    mailbox  INTEGER NOT NULL PRIMARY KEY REFERENCES mailbox (id) ON DELETE CASCADE,
    reason   TEXT    NOT NULL,
    at       INTEGER NOT NULL DEFAULT (unixepoch()),
    approved INTEGER NOT NULL DEFAULT 0,
    CONSTRAINT held_mailbox_approved CHECK (approved IN (0, 1))
) STRICT;

-- Something that was done. The mailbox is named, not referred to: its history outlives it.
CREATE TABLE journal (
    id      INTEGER NOT NULL PRIMARY KEY,
    at      INTEGER NOT NULL,   -- milliseconds since 1970
    mailbox TEXT    NOT NULL,
    op      TEXT    NOT NULL,   -- the op as a dry run prints it
    cause   TEXT    NOT NULL,   -- why it was done
    kind    TEXT    NOT NULL,   -- download, upload, flags, remove, expunge, move, …
    kept    TEXT                -- where a removed file is now
) STRICT;

-- The guard counts these over a day.
CREATE INDEX journal_removals ON journal (mailbox, at) WHERE kind IN ('remove', 'expunge');
