-- Schema 3: operators' tokens, and one partner's events in the order of their positions (an index ends with the row's number,
-- which is the position).

CREATE TABLE tokens (
    id       BLOB PRIMARY KEY,
    revision INTEGER NOT NULL,
    doc      TEXT NOT NULL
) WITHOUT ROWID;

CREATE INDEX event_log_of_partner ON event_log (partner);
