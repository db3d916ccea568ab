//! Shared access signatures, made with an account key: the client knows no other way to use one.
//!
//! Source: "Create a service SAS" and "Create an account SAS" of the Azure Storage REST reference, version 2022-11-02.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

const VERSION: &str = "2022-11-02";

/// How far a signature reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The blobs of one container.
    Container(String),
    /// The containers of the account, but not what is in them.
    Account,
}

/// What is signed.
pub(crate) struct Grant<'a> {
    pub(crate) account: &'a str,
    pub(crate) scope: &'a Scope,
    /// Letters in the service's order: `racwdl`.
    pub(crate) permissions: &'a str,
    /// `2026-01-31T12:00:00Z`.
    pub(crate) expires: &'a str,
    /// Whether it may be used without TLS: with a test server.
    pub(crate) plain: bool,
}

impl Grant<'_> {
    /// The query that carries the signature. None if the key is not base64.
    pub(crate) fn sign(&self, key: &str) -> Option<String> {
        let key = STANDARD.decode(key.trim()).ok()?;
        let (expires, account) = (self.expires, self.account);
        let protocol = if self.plain { "https,http" } else { "https" };
        let (fields, text) = match self.scope {
            Scope::Container(container) => {
                let permissions = self.permissions;
                let fields = vec![
                    ("sv", VERSION),
                    ("sr", "c"),
                    ("sp", permissions),
                    ("se", expires),
                    ("spr", protocol),
                ];
                // Permissions, start, expiry, resource, policy, address, protocol, version, kind, snapshot, encryption scope,
                // and five headers of the answer that could be set.
                let text = [
                    permissions,
                    "",
                    expires,
                    &format!("/blob/{account}/{container}"),
                    "",
                    "",
                    protocol,
                    VERSION,
                    "c",
                    "",
                    "",
                    "",
                    "",
                    "",
                    "",
                    "",
                ]
                .join("\n");
                (fields, text)
            }
            Scope::Account => {
                let fields = vec![
                    ("sv", VERSION),
                    ("ss", "b"),
                    ("srt", "c"),
                    ("sp", self.permissions),
                    ("se", expires),
                    ("spr", protocol),
                ];
                // Account, permissions, services, kinds, start, expiry, address, protocol, version, encryption scope, end.
                let text = [account, self.permissions, "b", "c", "", expires, "", protocol, VERSION, "", ""]
                    .join("\n");
                (fields, text)
            }
        };
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
        mac.update(text.as_bytes());
        let signature = STANDARD.encode(mac.finalize().into_bytes());
        let mut query = String::new();
        for (name, value) in fields.into_iter().chain([("sig", signature.as_str())]) {
            if !query.is_empty() {
                query.push('&');
            }
            query.push_str(name);
            query.push('=');
            for byte in value.bytes() {
                if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                    query.push(char::from(byte));
                } else {
                    query.push_str(&format!("%{byte:02X}"));
                }
            }
        }
        Some(query)
    }
}
