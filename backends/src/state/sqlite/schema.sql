-- Schema 1 of the Dropgate state store. Every record is kept whole as JSON (`doc`, `canonical`); the other columns are
-- what queries ask for, taken from it when it is written. Moments are milliseconds since the Unix epoch, ids are 16 bytes.

CREATE TABLE schema_versions (
    version    INTEGER PRIMARY KEY,
    applied_at TEXT NOT NULL,
    software   TEXT NOT NULL
);

CREATE TABLE settings (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

-- For readiness: something to write.
CREATE TABLE probe (checks INTEGER NOT NULL);
INSERT INTO probe VALUES (0);

CREATE TABLE uploads (
    id         INTEGER PRIMARY KEY,
    upload_id  BLOB NOT NULL,
    account    TEXT NOT NULL,
    partner    TEXT NOT NULL,
    path_key   TEXT NOT NULL,
    dir_key    TEXT NOT NULL,
    name_key   TEXT NOT NULL,
    version    INTEGER NOT NULL,
    state      TEXT NOT NULL,
    area       TEXT,              -- where it is listed; null: nowhere
    deleted    INTEGER NOT NULL,
    owners     BLOB NOT NULL,     -- what stands in upload_owners, one id behind the other
    sha256     BLOB,
    blob       BLOB,
    opened_at  INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    revision   INTEGER NOT NULL,
    answered   INTEGER NOT NULL,  -- once 1 it stays, whatever a later `doc` says: it is set without a revision
    doc        TEXT NOT NULL      -- last, so that reading the columns before it never follows overflow pages
);
CREATE UNIQUE INDEX uploads_by_id      ON uploads (upload_id);
CREATE UNIQUE INDEX uploads_by_path    ON uploads (account, path_key, version DESC);
CREATE INDEX        uploads_by_listing ON uploads (account, dir_key, area, name_key, version DESC) WHERE area IS NOT NULL;
CREATE INDEX        uploads_by_state   ON uploads (state, upload_id);
CREATE INDEX        uploads_by_account ON uploads (account, upload_id);
CREATE INDEX        uploads_by_partner ON uploads (partner, upload_id);
CREATE INDEX        uploads_by_opening ON uploads (opened_at);
CREATE INDEX        uploads_by_digest  ON uploads (sha256) WHERE sha256 IS NOT NULL;
CREATE INDEX        uploads_by_blob    ON uploads (blob)   WHERE blob IS NOT NULL;

-- Who works on an upload now: the gateway that receives it, workers that hold a delivery.
CREATE TABLE upload_owners (
    owner  BLOB NOT NULL,
    upload INTEGER NOT NULL,
    PRIMARY KEY (owner, upload)
) WITHOUT ROWID;

-- How many uploads that are not deleted are in each state: counting a million rows for every look at the metrics would not do.
CREATE TABLE upload_counts (
    state TEXT PRIMARY KEY,
    n     INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE inline_content (
    upload INTEGER PRIMARY KEY,
    bytes  BLOB NOT NULL
);

CREATE TABLE directories (
    account   TEXT NOT NULL,
    path_key  TEXT NOT NULL,
    dir_key   TEXT NOT NULL,
    name_key  TEXT NOT NULL,
    in_upload INTEGER NOT NULL,
    in_sent   INTEGER NOT NULL,
    in_failed INTEGER NOT NULL,
    revision  INTEGER NOT NULL,
    doc       TEXT NOT NULL,
    PRIMARY KEY (account, dir_key, name_key)
) WITHOUT ROWID;

CREATE TABLE accounts (
    name     TEXT PRIMARY KEY,
    revision INTEGER NOT NULL,
    doc      TEXT NOT NULL
) WITHOUT ROWID;

-- Entries are never taken away, so the number after the last one was never given before.
CREATE TABLE audit (
    position    INTEGER PRIMARY KEY,
    at          INTEGER NOT NULL,
    action      TEXT NOT NULL,
    rare_action TEXT,             -- the action, if it is not one that every upload comes by
    result      TEXT NOT NULL,
    actor       TEXT NOT NULL,
    account     TEXT,
    subject     TEXT,
    upload      BLOB,
    reference   TEXT,
    canonical   BLOB NOT NULL
);
CREATE INDEX audit_by_action    ON audit (rare_action) WHERE rare_action IS NOT NULL;
CREATE INDEX audit_by_actor     ON audit (actor);
CREATE INDEX audit_by_account   ON audit (account)   WHERE account IS NOT NULL;
CREATE INDEX audit_by_subject   ON audit (subject)   WHERE subject IS NOT NULL;
CREATE INDEX audit_by_upload    ON audit (upload)    WHERE upload IS NOT NULL;
CREATE INDEX audit_by_reference ON audit (reference) WHERE reference IS NOT NULL;
CREATE INDEX audit_by_trouble   ON audit (result)    WHERE result <> 'ok';

-- Now and then, the latest moment of all entries up to a position: entries since a later moment lie behind it. Costs next to
-- nothing where an index on the moment would cost a page for every entry.
CREATE TABLE audit_marks (
    position  INTEGER PRIMARY KEY,
    latest_at INTEGER NOT NULL
);

-- What must follow from changes. A row goes when it was handled.
CREATE TABLE outbox (
    id         INTEGER PRIMARY KEY,
    entry_id   BLOB NOT NULL UNIQUE,
    kind       TEXT NOT NULL,
    upload     BLOB,
    due        INTEGER NOT NULL,  -- when it was first due
    not_before INTEGER,           -- null: at once
    doc        TEXT NOT NULL
);
CREATE INDEX outbox_at_once ON outbox (kind)             WHERE not_before IS NULL;
CREATE INDEX outbox_later   ON outbox (kind, not_before) WHERE not_before IS NOT NULL;

CREATE TABLE event_log (
    position INTEGER PRIMARY KEY,
    event_id BLOB NOT NULL UNIQUE,
    partner  TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    doc      TEXT NOT NULL,
    UNIQUE (partner, sequence)
);

CREATE TABLE cursors (
    reader   TEXT PRIMARY KEY,
    position INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE leases (
    name    TEXT PRIMARY KEY,
    holder  BLOB,                 -- null: given back
    token   INTEGER NOT NULL,
    renewed INTEGER NOT NULL      -- raised by every renewal
) WITHOUT ROWID;

CREATE TABLE instances (
    id      BLOB PRIMARY KEY,
    role    TEXT NOT NULL,
    node    TEXT NOT NULL,
    beats   INTEGER NOT NULL,
    seen_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE key_reservations (
    destination TEXT NOT NULL,
    key         TEXT NOT NULL,
    account     TEXT NOT NULL,
    path_key    TEXT NOT NULL,
    PRIMARY KEY (destination, key)
) WITHOUT ROWID;

-- The job queue. `due` is a reading of the host's clock since its start (`settings.boot` says which start), the same for
-- every process: for a waiting job when it may be given out, for one that is out when its lease ends.
CREATE TABLE jobs (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    entry   BLOB NOT NULL,
    upload  BLOB NOT NULL,
    work    TEXT NOT NULL,
    due     INTEGER NOT NULL,
    taker   BLOB,                 -- null: waiting
    given   INTEGER NOT NULL      -- how often it was given out
);
CREATE INDEX        jobs_by_due     ON jobs (due);
CREATE UNIQUE INDEX jobs_waiting    ON jobs (upload, work) WHERE taker IS NULL;
