//! Passwords: argon2id on the blocking pool, a bounded number at a time, the same work whether the account exists or not.

use super::CredentialError;
use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{Error as HashError, PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};
use rand::RngExt as _;
use std::{sync::Arc, time::Duration};
use tokio::sync::Semaphore;

/// KiB of memory one hash takes.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// A stored hash that asks for more than this is not computed: whoever writes the store could stall every login.
const LARGEST_MEMORY_KIB: u32 = 256 * 1024;
const LARGEST_PASSES: u32 = 32;
/// Longest wait for a turn and the hash.
const DEADLINE: Duration = Duration::from_secs(20);
/// Bytes; a longer password is wrong without a look.
const LONGEST_PASSWORD: usize = 1024;

/// What a login without an account is checked against: a hash of nothing anybody knows.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5LWtub3dzLW1l$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Hashes and checks passwords. Cheap to clone; clones share the bound.
#[derive(Clone, Debug)]
pub struct Passwords {
    turns: Arc<Semaphore>,
}

impl Default for Passwords {
    /// As many at a time as there are processors.
    fn default() -> Self {
        Self::new(std::thread::available_parallelism().map_or(2, usize::from))
    }
}

impl Passwords {
    /// At most `at_once` hashes at a time, 19 MiB each; the others wait.
    #[must_use]
    pub fn new(at_once: usize) -> Self {
        Self { turns: Arc::new(Semaphore::new(at_once.clamp(1, 1024))) }
    }

    /// Hashes a password with a new salt; the result is a PHC string.
    ///
    /// # Errors
    /// [`CredentialError::Rejected`] for an empty or overlong password, [`CredentialError::Unavailable`] if there was no turn.
    pub async fn hash(&self, password: &str) -> Result<String, CredentialError> {
        if password.is_empty() || password.len() > LONGEST_PASSWORD {
            return Err(CredentialError::Rejected(format!(
                "a password has 1 to {LONGEST_PASSWORD} bytes, this one has {}",
                password.len()
            )));
        }
        let password = password.to_owned();
        self.turn(move || {
            let hash = argon2()?.hash_password(password.as_bytes()).map_err(rejected)?;
            Ok(hash.to_string())
        })
        .await
    }

    /// Whether a password is the one behind `hash`. Without a hash the answer is no, after the same work.
    ///
    /// # Errors
    /// [`CredentialError::Corrupt`] if `hash` is none that we can check, [`CredentialError::Unavailable`] if there was no turn.
    pub async fn verify(&self, password: &str, hash: Option<&str>) -> Result<bool, CredentialError> {
        let known = hash.is_some();
        let hash = hash.unwrap_or(NOBODY).to_owned();
        let fits = !password.is_empty() && password.len() <= LONGEST_PASSWORD;
        let password = if fits { password.to_owned() } else { String::new() };
        let right = self.turn(move || check(&password, &hash)).await?;
        Ok(right && known && fits)
    }

    async fn turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, CredentialError> + Send + 'static,
    ) -> Result<T, CredentialError> {
        let turn = async {
            let turn = self.turns.clone().acquire_owned().await.map_err(|e| unavailable(&e))?;
            // The turn goes with the work: a login that is given up does not let another one in beside it.
            let work = tokio::task::spawn_blocking(move || {
                let result = work();
                drop(turn);
                result
            });
            work.await.map_err(|e| unavailable(&e))?
        };
        tokio::time::timeout(DEADLINE, turn).await.unwrap_or_else(|_| {
            Err(CredentialError::Unavailable("too many logins at a time: no turn for this one".to_owned()))
        })
    }
}

fn unavailable(error: &dyn std::error::Error) -> CredentialError {
    CredentialError::Unavailable(error.to_string())
}

fn rejected(error: impl std::fmt::Display) -> CredentialError {
    CredentialError::Rejected(format!("the password can't be hashed: {error}"))
}

fn argon2() -> Result<Argon2<'static>, CredentialError> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(rejected)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn check(password: &str, hash: &str) -> Result<bool, CredentialError> {
    let corrupt = |what: &str| CredentialError::Corrupt(format!("a password hash: {what}"));
    let hash = PasswordHash::new(hash).map_err(|e| corrupt(&e.to_string()))?;
    let params = Params::try_from(&hash).map_err(|e| corrupt(&e.to_string()))?;
    if params.m_cost() > LARGEST_MEMORY_KIB || params.t_cost() > LARGEST_PASSES {
        return Err(corrupt("it asks for more than 256 MiB or 32 passes"));
    }
    match argon2()?.verify_password(password.as_bytes(), &hash) {
        Ok(()) => Ok(true),
        Err(HashError::PasswordInvalid) => Ok(false),
        Err(e) => Err(corrupt(&e.to_string())),
    }
}

/// A password nobody can guess and everybody can type: 24 letters and digits without those that look alike, about 139 bits.
#[must_use]
pub fn random() -> String {
    const ALPHABET: &[u8] = b"abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";
    let mut rng = rand::rng();
    std::iter::repeat_with(|| rng.random_range(0..ALPHABET.len()))
        .filter_map(|i| ALPHABET.get(i).copied().map(char::from))
        .take(24)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_right_password_and_no_other() {
        let passwords = Passwords::default();
        let hash = passwords.hash("correct horse").await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_ne!(hash, passwords.hash("correct horse").await.unwrap(), "salted");
        assert!(passwords.verify("correct horse", Some(&hash)).await.unwrap());
        for wrong in ["", "correct horse ", "Correct horse", &"x".repeat(5000)] {
            assert!(!passwords.verify(wrong, Some(&hash)).await.unwrap(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn an_unknown_account_is_as_much_work_and_always_wrong() {
        let passwords = Passwords::default();
        for password in ["", "x", "correct horse"] {
            assert!(!passwords.verify(password, None).await.unwrap());
        }
        // The dummy parses, so it really is computed.
        assert!(!check("x", NOBODY).unwrap());
    }

    #[tokio::test]
    async fn a_hash_that_is_none_or_costs_too_much_is_corrupt() {
        let passwords = Passwords::new(1);
        let costly = NOBODY.replace("m=19456", "m=4194304");
        for bad in ["", "plain", "$2b$12$abcdefghijklmnopqrstuv", "$argon2id$v=19$m=x$a$b", &costly] {
            let error = passwords.verify("x", Some(bad)).await.unwrap_err();
            assert!(matches!(error, CredentialError::Corrupt(_)), "{bad}: {error}");
        }
        for bad in ["", &"x".repeat(1025)] {
            assert!(matches!(passwords.hash(bad).await, Err(CredentialError::Rejected(_))));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_gets_no_turn_is_told_to_come_again() {
        let passwords = Passwords::new(1);
        let _held = passwords.turns.clone().acquire_owned().await.unwrap();
        let error = passwords.verify("x", None).await.unwrap_err();
        assert!(matches!(error, CredentialError::Unavailable(_)), "{error}");
    }

    #[test]
    fn random_passwords_differ() {
        let (a, b) = (random(), random());
        assert_eq!(a.len(), 24);
        assert_ne!(a, b);
    }
}
