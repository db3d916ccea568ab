//! The one registry of identifiers. Each kind is a type of its own, so that a delivery id can't be passed where an
//! upload id is meant. All are UUIDs; ids minted here are version 7, so they sort by the time of their making.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use uuid::Uuid;

/// The name space of delivery ids (UUIDv5).
const DELIVERY_NAMESPACE: Uuid = Uuid::from_u128(0x6b0f_5f0e_3c44_4d3f_9a57_0d1e_57a9_c0de);

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Mints a new id (UUIDv7).
            #[must_use]
            #[expect(clippy::new_without_default, reason = "a default that differs every time would surprise")]
            pub fn new() -> Self { Self(Uuid::now_v7()) }
            /// Wraps a UUID that is already known to be of this kind.
            #[must_use]
            pub const fn from_uuid(uuid: Uuid) -> Self { Self(uuid) }
            /// The bare UUID.
            #[must_use]
            pub const fn uuid(self) -> Uuid { self.0 }
            /// The first eight hex digits of the random tail: short enough for people, used in file names and logs.
            #[must_use]
            pub fn short(self) -> String {
                let hex = self.0.simple().to_string();
                hex.get(24..).unwrap_or(&hex).to_owned()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { self.0.hyphenated().fmt(f) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, concat!(stringify!($name), "({})"), self.0) }
        }
        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(s: &str) -> Result<Self, Self::Err> { Uuid::from_str(s).map(Self) }
        }
    )+};
}

ids! {
    /// One version of one uploaded file, from OPEN on. It keeps its id through the rename from a temp name.
    UploadId;
    /// One upload to one destination in one generation; the idempotency key at the destination.
    DeliveryId;
    /// One event, minted in the change that causes it and reused on every publish (CloudEvents `id`).
    EventId;
    /// One entry of the outbox.
    OutboxId;
    /// One audit entry.
    AuditId;
    /// One SSH connection of a client.
    SessionId;
    /// One installation of a role: stays the same over restarts on the same data directory.
    InstanceId;
    /// The bytes of one upload in the blob store.
    BlobId;
    /// Proof of acceptance or delivery, named in the answer to CLOSE.
    ReceiptId;
    /// One operator's token.
    TokenId;
}

impl DeliveryId {
    /// The id of the delivery of `upload` to `destination` in `generation`: the same inputs always give the same id,
    /// which is what makes a repeated delivery recognisable at the destination.
    #[must_use]
    pub fn derive(upload: UploadId, destination: &str, generation: u32) -> Self {
        let name = format!("{upload}/{generation}/{destination}");
        Self(Uuid::new_v5(&DELIVERY_NAMESPACE, name.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_id_depends_on_upload_destination_and_generation_only() {
        let upload = UploadId::new();
        let id = DeliveryId::derive(upload, "archive", 1);
        assert_eq!(id, DeliveryId::derive(upload, "archive", 1));
        assert_ne!(id, DeliveryId::derive(upload, "archive", 2));
        assert_ne!(id, DeliveryId::derive(upload, "other", 1));
        assert_ne!(id, DeliveryId::derive(UploadId::new(), "archive", 1));
    }

    #[test]
    fn ids_print_and_parse() {
        let id = UploadId::new();
        assert_eq!(id.to_string().parse::<UploadId>().unwrap(), id);
        assert_eq!(id.short().len(), 8);
    }
}
