//! How each client is told what to do.

mod curl;
mod foreign;
mod lftp;
mod openssh;
mod putty;
mod rclone;
mod replayed;

pub use curl::Curl;
pub use foreign::Foreign;
pub use lftp::Lftp;
pub use openssh::{Scp, Sftp};
pub use putty::{Pscp, Psftp};
pub use rclone::Rclone;
pub use replayed::{Desktop, Replayed};

use super::{Answer, Said};
use anyhow::Result;
use std::future::Future;

/// Several programs at the same time, for clients that take one file each.
async fn at_once<F: Future<Output = Result<Answer>>>(runs: impl Iterator<Item = F>) -> Result<Answer> {
    let mut all = Said { ok: true, text: String::new() };
    for answer in futures::future::try_join_all(runs).await? {
        match answer {
            Answer::Ended(said) => {
                all.ok &= said.ok;
                all.text.push_str(&said.text);
            }
            Answer::Cannot(why) => return Ok(Answer::Cannot(why)),
        }
    }
    Ok(Answer::Ended(all))
}

/// Wrapped in double quotes; within them, each of these characters gets this before it.
fn quoted(text: &str, special: &[char], before: char) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        if special.contains(&c) {
            out.push(before);
        }
        out.push(c);
    }
    out.push('"');
    out
}
