//! Checking a password: argon2id on the blocking pool, a bounded number at a time, the same work for unknown accounts.

use std::sync::Arc;
use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::PasswordVerifier as _;
use argon2::password_hash::phc::PasswordHash;
use tokio::sync::Semaphore;

/// Longer passwords are refused unhashed.
pub(crate) const PASSWORD_MAX: usize = 1024;

/// Takes the time of a real hash with the parameters that new passwords get (19 MiB, t=2, p=1) and matches nothing.
const DUMMY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$ZHJvcGdhdGUtZHVtbXkh$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// No hash could be computed now: too many logins are being checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Busy;

/// Verifies passwords, at most `at_once` at a time: each costs 19 MiB and tens of milliseconds of CPU.
#[derive(Clone, Debug)]
pub(crate) struct PasswordChecker {
    slots: Arc<Semaphore>,
    patience: Duration,
}

impl PasswordChecker {
    pub(crate) fn new(at_once: usize, patience: Duration) -> Self {
        Self { slots: Arc::new(Semaphore::new(at_once.max(1))), patience }
    }

    /// Whether `password` matches the PHC string; `None` costs the same and is false.
    pub(crate) async fn verify(&self, password: &str, hash: Option<&str>) -> Result<bool, Busy> {
        if password.len() > PASSWORD_MAX {
            return Ok(false);
        }
        let slot = tokio::time::timeout(self.patience, Arc::clone(&self.slots).acquire_owned())
            .await
            .map_err(|_| Busy)?
            .map_err(|_| Busy)?;
        let known = hash.is_some();
        let hash = hash.unwrap_or(DUMMY).to_owned();
        let password = password.to_owned();
        let matches = tokio::task::spawn_blocking(move || {
            // Held inside the task: if the session ends meanwhile, the slot stays taken as long as the CPU is.
            let _slot = slot;
            let parsed = PasswordHash::new(&hash);
            parsed.is_ok_and(|parsed| Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok())
        })
        .await
        .map_err(|_| Busy)?;
        Ok(known && matches)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use argon2::PasswordHasher as _;

    use super::*;

    #[tokio::test]
    async fn right_wrong_and_unknown() {
        let hash = Argon2::default().hash_password(b"correct horse").unwrap().to_string();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        let checker = PasswordChecker::new(2, Duration::from_secs(30));
        assert_eq!(checker.verify("correct horse", Some(&hash)).await, Ok(true));
        assert_eq!(checker.verify("wrong", Some(&hash)).await, Ok(false));
        assert_eq!(checker.verify("correct horse", Some("not a hash")).await, Ok(false));
        let started = Instant::now();
        assert_eq!(checker.verify("correct horse", None).await, Ok(false));
        let dummy = started.elapsed();
        let started = Instant::now();
        assert_eq!(checker.verify("wrong", Some(&hash)).await, Ok(false));
        let real = started.elapsed();
        assert!(dummy * 4 > real, "an unknown account must cost what a known one does: {dummy:?} {real:?}");
    }

    #[tokio::test]
    async fn does_not_queue_for_ever() {
        let checker = PasswordChecker::new(1, Duration::from_millis(20));
        let _all = Arc::clone(&checker.slots).acquire_owned().await.unwrap();
        assert_eq!(checker.verify("x", None).await, Err(Busy));
        assert_eq!(checker.verify(&"x".repeat(PASSWORD_MAX + 1), None).await, Ok(false));
    }
}
