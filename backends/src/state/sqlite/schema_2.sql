-- Schema 2: entries of `/inbox`, and how much each account has sent, for quotas.

CREATE TABLE inbox (
    account  TEXT NOT NULL,
    name_key TEXT NOT NULL,
    shown    INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    doc      TEXT NOT NULL,
    PRIMARY KEY (account, name_key)
) WITHOUT ROWID;

-- Bytes of an upload that count: its size once complete, unless it was aborted. At most a PiB, so that sums fit.
ALTER TABLE uploads ADD COLUMN bytes INTEGER;
UPDATE uploads SET bytes = min(json_extract(doc, '$.size'), 1125899906842624) WHERE state <> 'aborted';
CREATE INDEX uploads_by_usage ON uploads (account, opened_at, bytes) WHERE bytes IS NOT NULL;
