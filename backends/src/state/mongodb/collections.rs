//! Which collections there are, and which indexes each must have. Names are below the configured prefix.
//!
//! | Collection | A document is |
//! |---|---|
//! | `meta` | the schema's version, and something to write for readiness |
//! | `uploads` | one version: `record`, what queries ask for beside it, inline content, entries that wait to be placed |
//! | `directories`, `accounts`, `inbox`, `tokens` | one directory, account, entry of `/inbox` or operator's token, with the same embedding |
//! | `pending` | audit and outbox entries that belong to no record, until they are placed |
//! | `audit` | one audit entry at its position |
//! | `outbox` | one follow-up, in the order of storing; handled ones stay as a mark for an hour |
//! | `event_log` | one event at its position |
//! | `cursors`, `leases`, `instances`, `key_reservations` | one of those |
//! | `pulses` | how often a process has told of changes |

use mongodb::bson::{Document, doc};
use std::time::Duration;

pub(super) const META: &str = "meta";
pub(super) const UPLOADS: &str = "uploads";
pub(super) const DIRECTORIES: &str = "directories";
pub(super) const ACCOUNTS: &str = "accounts";
pub(super) const INBOX: &str = "inbox";
pub(super) const TOKENS: &str = "tokens";
pub(super) const PENDING: &str = "pending";
pub(super) const AUDIT: &str = "audit";
pub(super) const OUTBOX: &str = "outbox";
pub(super) const EVENT_LOG: &str = "event_log";
pub(super) const CURSORS: &str = "cursors";
pub(super) const LEASES: &str = "leases";
pub(super) const INSTANCES: &str = "instances";
pub(super) const KEY_RESERVATIONS: &str = "key_reservations";
pub(super) const PULSES: &str = "pulses";

/// All of them.
pub(super) const ALL: [&str; 15] = [
    META,
    UPLOADS,
    DIRECTORIES,
    ACCOUNTS,
    INBOX,
    TOKENS,
    PENDING,
    AUDIT,
    OUTBOX,
    EVENT_LOG,
    CURSORS,
    LEASES,
    INSTANCES,
    KEY_RESERVATIONS,
    PULSES,
];

/// How long the mark of a handled follow-up is kept. Whoever still holds the entry from before it was handled must have
/// given up by then, and no call takes nearly as long.
const HANDLED_FOR: Duration = Duration::from_secs(3_600);
/// How long a process is remembered that tells of no changes.
const PULSES_FOR: Duration = Duration::from_secs(86_400);

/// One index.
pub(super) struct Index {
    pub(super) collection: &'static str,
    pub(super) name: &'static str,
    pub(super) keys: Document,
    pub(super) unique: bool,
    /// Only documents that match are in it.
    pub(super) only: Option<Document>,
    /// Only documents that have the field are in it.
    pub(super) sparse: bool,
    /// Documents go when the date of the key is so long ago.
    pub(super) expire: Option<Duration>,
}

const fn index(collection: &'static str, name: &'static str, keys: Document) -> Index {
    Index { collection, name, keys, unique: false, only: None, sparse: false, expire: None }
}

impl Index {
    fn unique(mut self) -> Self {
        self.unique = true;
        self
    }

    fn only(mut self, filter: Document) -> Self {
        self.only = Some(filter);
        self
    }

    fn sparse(mut self) -> Self {
        self.sparse = true;
        self
    }

    fn expire(mut self, after: Duration) -> Self {
        self.expire = Some(after);
        self
    }
}

/// Every index that is not on `_id`.
pub(super) fn indexes() -> Vec<Index> {
    let there = |field: &str| doc! { field: { "$exists": true } };
    let upload = |name, keys| index(UPLOADS, name, keys);
    let audit = |name, field: &str| index(AUDIT, name, doc! { field: 1, "_id": 1 }).only(there(field));
    let unplaced = |collection| index(collection, "unplaced", doc! { "unplaced": 1 }).sparse();
    vec![
        upload("by_path", doc! { "record.account": 1, "keys.path": 1, "record.version": -1 }).unique(),
        upload(
            "by_listing",
            doc! { "record.account": 1, "keys.directory": 1, "area": 1, "keys.name": 1, "record.version": -1 },
        )
        .only(there("area")),
        upload("by_state", doc! { "record.state": 1, "_id": -1 }),
        upload("by_account", doc! { "record.account": 1, "_id": -1 }),
        upload("by_partner", doc! { "record.partner": 1, "_id": -1 }),
        upload("by_opening", doc! { "opened_at": 1 }),
        upload("by_digest", doc! { "record.sha256": 1 }).sparse(),
        upload("by_blob", doc! { "blob": 1 }).sparse(),
        upload("by_owner", doc! { "owners": 1 }).sparse(),
        upload("counts", doc! { "deleted": 1, "record.state": 1 }),
        upload(
            "by_usage",
            doc! { "record.account": 1, "opened_at": 1, "record.state": 1, "record.size": 1 },
        )
        .only(there("record.size")),
        unplaced(UPLOADS),
        index(
            DIRECTORIES,
            "by_listing",
            doc! { "record.account": 1, "keys.directory": 1, "keys.name": 1 },
        ),
        unplaced(DIRECTORIES),
        unplaced(ACCOUNTS),
        index(INBOX, "by_listing", doc! { "record.account": 1, "shown": 1, "keys.name": 1 }),
        unplaced(INBOX),
        unplaced(TOKENS),
        index(AUDIT, "by_entry", doc! { "entry": 1 }).unique(),
        audit("by_reference", "reference"),
        audit("by_upload", "upload"),
        audit("by_subject", "subject"),
        audit("by_account", "account"),
        audit("by_rare_action", "rare_action"),
        audit("by_trouble", "trouble"),
        index(AUDIT, "by_actor", doc! { "actor": 1, "_id": 1 }),
        index(AUDIT, "by_moment", doc! { "at": 1 }),
        index(OUTBOX, "by_entry", doc! { "entry": 1 }).unique(),
        index(OUTBOX, "by_kind", doc! { "kind": 1, "waits": 1, "_id": 1 }),
        index(OUTBOX, "later", doc! { "not_before": 1 }).sparse(),
        index(OUTBOX, "oldest", doc! { "due": 1 }).sparse(),
        index(OUTBOX, "handled", doc! { "handled_at": 1 }).expire(HANDLED_FOR),
        index(EVENT_LOG, "by_event", doc! { "event_id": 1 }).unique(),
        index(EVENT_LOG, "by_partner", doc! { "partner": 1, "sequence": 1 }).unique(),
        index(EVENT_LOG, "of_partner", doc! { "partner": 1, "_id": 1 }),
        index(KEY_RESERVATIONS, "by_key", doc! { "destination": 1, "key": 1 }).unique(),
        index(PULSES, "forgotten", doc! { "at": 1 }).expire(PULSES_FOR),
    ]
}
