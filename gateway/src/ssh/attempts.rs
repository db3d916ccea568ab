//! Counts the login tries of one connection. russh's own counter takes the initial `none` for a try and acts one request
//! late.

/// Caps on tries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttemptLimits {
    pub(crate) passwords: u32,
    pub(crate) all: u32,
    pub(crate) key_offers: u32,
}

/// The counters. They survive a change of the user name: otherwise names could be alternated for endless tries.
#[derive(Debug)]
pub(crate) struct Attempts {
    limits: AttemptLimits,
    passwords: u32,
    all: u32,
    key_offers: u32,
}

impl Attempts {
    pub(crate) fn new(limits: AttemptLimits) -> Self {
        Self { limits, passwords: 0, all: 0, key_offers: 0 }
    }

    /// Whether all tries are used up.
    pub(crate) fn exhausted(&self) -> bool {
        self.passwords >= self.limits.passwords
            || self.all >= self.limits.all
            || self.key_offers > self.limits.key_offers
    }

    pub(crate) fn password_failed(&mut self) {
        self.passwords += 1;
        self.all += 1;
    }

    pub(crate) fn signature_failed(&mut self) {
        self.all += 1;
    }

    /// A key was offered, good or not: each offer reaches the credential store.
    pub(crate) fn key_offered(&mut self) {
        self.key_offers += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: AttemptLimits = AttemptLimits { passwords: 3, all: 6, key_offers: 20 };

    #[test]
    fn three_passwords_or_six_tries_or_twenty_offers() {
        let mut passwords = Attempts::new(LIMITS);
        for _ in 0..3 {
            assert!(!passwords.exhausted());
            passwords.password_failed();
        }
        assert!(passwords.exhausted());

        let mut mixed = Attempts::new(LIMITS);
        mixed.password_failed();
        for _ in 0..5 {
            assert!(!mixed.exhausted());
            mixed.signature_failed();
        }
        assert!(mixed.exhausted());

        let mut offers = Attempts::new(LIMITS);
        for _ in 0..20 {
            offers.key_offered();
            assert!(!offers.exhausted());
        }
        offers.key_offered();
        assert!(offers.exhausted());
    }
}
