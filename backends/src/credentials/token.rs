//! The text of an operator's token: `dgt_`, its id, `_`, its secret. The id finds the record, whose digest the secret is
//! compared with in constant time. The secret has some 139 random bits, so one round of SHA-256 is enough to keep it.

use super::password;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use dropgate_schemas::{digest::Sha256, id::TokenId, token::Token};
use std::fmt;
use uuid::Uuid;

const PREFIX: &str = "dgt_";
/// Bytes; a longer text is no token without a look.
const LONGEST: usize = 128;

/// A token as its holder presents it. Can't be printed.
#[derive(Clone)]
pub struct Presented {
    id: TokenId,
    secret: String,
}

impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presented").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Presented {
    /// One that nobody knows yet.
    #[must_use]
    pub fn random() -> Self {
        Self { id: TokenId::new(), secret: password::random() }
    }

    /// From the text that was handed out.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(PREFIX).filter(|_| text.len() <= LONGEST)?;
        let (id, secret) = rest.split_once('_')?;
        let id = TokenId::from_uuid(Uuid::try_parse(id).ok()?);
        (!secret.is_empty()).then(|| Self { id, secret: secret.to_owned() })
    }

    /// Which token it says it is.
    #[must_use]
    pub const fn id(&self) -> TokenId {
        self.id
    }

    /// What is kept of the secret.
    #[must_use]
    pub fn digest(&self) -> Sha256 {
        Sha256::of(self.secret.as_bytes())
    }

    /// Whether it is the token of that record.
    #[must_use]
    pub fn is(&self, token: &Token) -> bool {
        self.id == token.id && verify_slices_are_equal(&self.digest().0, &token.secret_sha256.0).is_ok()
    }

    /// The text to hand out, once.
    #[must_use]
    pub fn expose(&self) -> String {
        format!("{PREFIX}{}_{}", self.id.uuid().simple(), self.secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::conformance::samples;

    #[test]
    fn the_right_secret_of_the_right_token_and_no_other() {
        let made = Presented::random();
        let kept = Token { id: made.id(), secret_sha256: made.digest(), ..samples::token("erp") };
        let text = made.expose();
        assert!(Presented::parse(&text).unwrap().is(&kept), "{text}");
        assert!(!Presented::parse(&format!("{text}x")).unwrap().is(&kept));
        assert!(!Presented::random().is(&kept));
        let other = Token { id: TokenId::new(), ..kept.clone() };
        assert!(!made.is(&other));
        assert!(!serde_json::to_string(&kept).unwrap().contains(&made.secret));
        assert!(!format!("{made:?}").contains(&made.secret));
    }

    #[test]
    fn what_is_no_token_is_told_without_a_look() {
        let id = Uuid::now_v7().simple();
        let long = format!("dgt_{id}_{}", "x".repeat(200));
        for text in [
            "",
            "dgt_",
            "dgt__",
            "dgt_x_y",
            &format!("dgt_{id}"),
            &format!("dgt_{id}_"),
            &format!("dg_{id}_x"),
            &long,
        ] {
            assert!(Presented::parse(text).is_none(), "{text}");
        }
    }
}
