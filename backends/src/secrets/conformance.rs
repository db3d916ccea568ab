//! What every secret store does, whatever is behind it.
#![expect(clippy::expect_used, reason = "a suite that fails panics, like the tests that call it")]

use super::{SecretError, SecretStore};

/// Runs the suite. `reference` must lead to `secret`, which should not be part of any other text; `missing` must be well
/// formed and lead to nothing.
///
/// # Panics
/// If the store does anything else than the port promises.
pub async fn suite(store: &dyn SecretStore, reference: &str, secret: &str, missing: &str) {
    let found = store.resolve(reference).await.expect("a secret that is there");
    assert_eq!(found.expose_str(), Some(secret));
    assert!(!format!("{found:?}").contains(secret), "a secret was printed");
    let again = store.resolve(reference).await.expect("the same again");
    assert!(again == found);

    let error = store.resolve(missing).await.expect_err("a secret that is not there");
    assert!(matches!(error, SecretError::NotFound { .. }), "{error}");
    assert!(error.to_string().contains(missing), "the reference is named: {error}");

    for malformed in ["", ":", "nonsense", "env:", "file:", "floppy:a"] {
        let error = store.resolve(malformed).await.expect_err("not a reference");
        assert!(matches!(error, SecretError::Malformed(_)), "{malformed}: {error}");
    }
}
