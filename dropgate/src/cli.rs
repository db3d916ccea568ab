//! The command line.

use crate::logging::Format;
use clap::{Args, Parser, Subcommand};
use dropgate_schemas::{
    account::{AccountName, PartnerName, TokenName},
    digest::Sha256,
    id::{TokenId, UploadId},
    path::VirtualPath,
    time::Timestamp,
    token::Scope,
    upload::UploadState,
};
use std::path::PathBuf;

/// Takes files from partners over SFTP and delivers them, verified, with a record of everything.
#[derive(Debug, Parser)]
#[command(
    name = "dropgate",
    version,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 done; 1 it could not be done; 2 the command line or the config is wrong and nothing was begun.\n\
                  Every key of the config can be set by a variable: DROPGATE__OPS__LISTEN sets ops.listen."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options that every command takes.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Global {
    /// Config file (TOML); without one the embedded defaults hold
    #[arg(long, global = true, value_name = "FILE", env = "DROPGATE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Directory for everything that is kept [default: data]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// How log lines on standard error look [default: auto]
    #[arg(long, global = true, value_enum, value_name = "FORMAT")]
    pub(crate) log_format: Option<Format>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run all roles in one process
    Run(Start),
    /// Run the gateway only: takes uploads from partners
    Gateway(Start),
    /// Run a worker only: delivers what was accepted
    Worker(Start),
    /// Run the ops listener only: health, readiness, metrics, the HTTP API
    Ops(Start),
    /// Check the config or print what is in effect
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Host keys of the SFTP listener
    #[command(subcommand)]
    Hostkey(HostkeyCommand),
    /// Accounts that partners log in with
    #[command(subcommand)]
    Account(AccountCommand),
    /// What accounts see in /inbox
    #[command(subcommand)]
    Inbox(InboxCommand),
    /// What was uploaded and where it went
    #[command(subcommand)]
    Uploads(UploadsCommand),
    /// Who did what
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Tokens for the HTTP API
    #[command(subcommand)]
    Token(TokenCommand),
    /// Name the content type of files, as their upload would be recorded
    Detect(Detect),
    /// Roles, backends, backlog and the last errors on one screen
    Status(Json),
}

#[derive(Debug, Args)]
pub(crate) struct Detect {
    /// Files to look at
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Ask the learned model about every file, also where the rules decide
    #[arg(long)]
    pub(crate) model: bool,
    #[command(flatten)]
    pub(crate) json: Json,
}

#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Start {
    /// Address of the SFTP listener; port 0 takes a free one [default: 127.0.0.1:2222]
    #[arg(long, value_name = "ADDR")]
    pub(crate) sftp_listen: Option<String>,
    /// Address of the ops listener; port 0 takes a free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    pub(crate) ops_listen: Option<String>,
    /// Address where this process answers /livez, /readyz and /metrics [default: none]
    #[arg(long, value_name = "ADDR")]
    pub(crate) health_listen: Option<String>,
}

/// Tables are for people.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Json {
    /// Print JSON for machines
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Name every problem with file, line and key
    Check,
    /// Print the settings in effect as TOML, secrets redacted
    Print(Json),
}

#[derive(Debug, Subcommand)]
pub(crate) enum HostkeyCommand {
    /// Make a host key (without --kind, those that are missing of the default kinds)
    Generate {
        /// Kind of key
        #[arg(long, value_enum)]
        kind: Option<KeyKind>,
        /// Replace the key that is there; every client will warn that the host key changed
        #[arg(long)]
        replace: bool,
    },
    /// Take a private key that partners know already (OpenSSH, PKCS#8 or PEM, without passphrase)
    Import {
        /// The private key
        file: PathBuf,
        /// Replace the key of this kind that is there
        #[arg(long)]
        replace: bool,
    },
    /// Print fingerprints (SHA256 and MD5) and known_hosts lines
    Show {
        /// Host name for the known_hosts lines [default: the listener's address]
        #[arg(long)]
        host: Option<String>,
        #[command(flatten)]
        json: Json,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum KeyKind {
    /// Ed25519
    Ed25519,
    /// RSA, 4096 bits
    Rsa,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AccountCommand {
    /// Add an account; without a credential option it gets a random password, printed once
    Add {
        /// Login name
        name: AccountName,
        /// Organisation it belongs to
        #[arg(long, value_name = "P")]
        partner: PartnerName,
        /// Read the password from the first line of standard input
        #[arg(long)]
        password_stdin: bool,
        /// Public key file (OpenSSH form, one or more keys); may be given several times
        #[arg(long, value_name = "FILE")]
        public_key: Vec<PathBuf>,
        /// Names like this are held until renamed (`*.tmp`); may be given several times
        #[arg(long, value_name = "GLOB")]
        temp_pattern: Vec<String>,
        #[command(flatten)]
        policy: Policy,
        #[command(flatten)]
        json: Json,
    },
    /// Change keys, temp patterns or policy. Taking a key away ends live sessions
    Change {
        /// Login name
        name: AccountName,
        /// Public key file to add (OpenSSH form, one or more keys); may be given several times
        #[arg(long, value_name = "FILE")]
        add_public_key: Vec<PathBuf>,
        /// Fingerprint (SHA256:…) of a public key to take away; may be given several times
        #[arg(long, value_name = "FINGERPRINT")]
        remove_public_key: Vec<String>,
        /// Names like this are held until renamed, in place of those set so far; an empty one sets none
        #[arg(long, value_name = "GLOB")]
        temp_pattern: Vec<String>,
        #[command(flatten)]
        policy: Policy,
    },
    /// Set another password; without --password-stdin a random one, printed once. Live sessions end
    Password {
        /// Login name
        name: AccountName,
        /// Read the password from the first line of standard input
        #[arg(long)]
        password_stdin: bool,
    },
    /// List accounts
    List {
        /// Only those whose latest logins used SHA-1 for the key exchange, the host key, the MAC or their own signature
        #[arg(long)]
        weak_algorithms: bool,
        /// With --weak-algorithms: logins since then, a time, a day or a span (24h, 7d) [default: 30d]
        #[arg(long, requires = "weak_algorithms", value_parser = crate::since::parse)]
        since: Option<Timestamp>,
        #[command(flatten)]
        json: Json,
    },
    /// Show one account
    Show {
        /// Login name
        name: AccountName,
        #[command(flatten)]
        json: Json,
    },
    /// Refuse logins and end live sessions
    Disable {
        /// Login name
        name: AccountName,
    },
    /// Allow logins again
    Enable {
        /// Login name
        name: AccountName,
    },
    /// Remove the account and its credentials; its uploads and its audit trail stay
    Remove {
        /// Login name
        name: AccountName,
    },
}

/// What an account's uploads are held to.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct Policy {
    /// What happens to a repeat of the last delivered version (same path, size, digest) [default: deliver]
    #[arg(long, value_enum, value_name = "WHAT")]
    pub(crate) on_duplicate: Option<Duplicate>,
    /// The weakest sign of completeness that is accepted [default: close-only]
    #[arg(long, value_enum, value_name = "GRADE")]
    pub(crate) minimum_evidence: Option<Evidence>,
    /// Bytes it may send a day (UTC), such as 10GiB, or none [default: none]
    #[arg(long, value_name = "SIZE", value_parser = bound)]
    pub(crate) bytes_per_day: Option<Bound>,
    /// Files it may send a day (UTC), or none [default: none]
    #[arg(long, value_name = "N", value_parser = bound)]
    pub(crate) uploads_per_day: Option<Bound>,
    /// Bytes of all its files that are kept, such as 1TiB, or none [default: none]
    #[arg(long, value_name = "SIZE", value_parser = bound)]
    pub(crate) total_bytes: Option<Bound>,
}

impl Policy {
    /// Whether nothing is to be changed.
    pub(crate) fn is_empty(&self) -> bool {
        let Self { on_duplicate, minimum_evidence, bytes_per_day, uploads_per_day, total_bytes } = self;
        let quota = [bytes_per_day, uploads_per_day, total_bytes];
        on_duplicate.is_none() && minimum_evidence.is_none() && quota.iter().all(|bound| bound.is_none())
    }
}

/// A bound of a quota; `none` lifts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bound(pub(crate) Option<u64>);

/// A number with an optional unit, or `none`.
fn bound(text: &str) -> Result<Bound, String> {
    if text == "none" {
        return Ok(Bound(None));
    }
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let unit: Option<u64> = match unit.trim() {
        "" => Some(1),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        "TiB" => Some(1 << 40),
        _ => None,
    };
    let number = digits.parse::<u64>().ok().zip(unit).and_then(|(n, unit)| n.checked_mul(unit));
    number
        .map(|n| Bound(Some(n)))
        .ok_or_else(|| "not a bound: use a number, one with KiB, MiB, GiB or TiB, or none".to_owned())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Duplicate {
    /// It is a new version and is delivered
    Deliver,
    /// The client gets OK and the old receipt; nothing is delivered
    Suppress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Evidence {
    /// A CLOSE and nothing else (OpenSSH sends one also after Ctrl-C)
    CloseOnly,
    /// The client set the size after writing (lftp, scp)
    FsetstatSize,
    /// The client declared the size at OPEN (WinSCP)
    DeclaredSize,
    /// The client renamed a temp name to the final name
    RenamedFromTemp,
}

#[derive(Debug, Subcommand)]
pub(crate) enum InboxCommand {
    /// Register an entry: the account lists it with its size; there is nothing to download
    Add {
        /// Who sees it
        #[arg(long)]
        account: AccountName,
        /// Its name, as NAME or /inbox/NAME
        #[arg(long, value_name = "NAME", value_parser = crate::commands::inbox::parse_path)]
        path: VirtualPath,
        /// Bytes
        #[arg(long)]
        size: u64,
        /// Digest in hex, for clients that ask for it
        #[arg(long, value_name = "HEX")]
        sha256: Option<Sha256>,
    },
    /// Take an entry away
    Remove {
        /// Who sees it
        #[arg(long)]
        account: AccountName,
        /// Its name, as NAME or /inbox/NAME
        #[arg(long, value_name = "NAME", value_parser = crate::commands::inbox::parse_path)]
        path: VirtualPath,
    },
    /// List what an account sees
    List {
        /// Who sees it
        #[arg(long)]
        account: AccountName,
        #[command(flatten)]
        json: Json,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum UploadsCommand {
    /// List uploads, newest first
    List {
        /// Of this account
        #[arg(long)]
        account: Option<AccountName>,
        /// In this state; may be given several times
        #[arg(long)]
        state: Vec<UploadState>,
        /// With this path
        #[arg(long)]
        path: Option<String>,
        /// Opened since then: a time (2026-03-01T12:00Z), a day (2026-03-01) or a span (24h, 7d)
        #[arg(long, value_parser = crate::since::parse)]
        since: Option<Timestamp>,
        /// At most so many [default: 100 in a table, all as JSON]
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
        #[command(flatten)]
        json: Json,
    },
    /// Show one upload: record, deliveries, timeline
    Show {
        /// Upload id
        id: UploadId,
        #[command(flatten)]
        json: Json,
    },
    /// Deliver it again to every destination its routes name now
    Redeliver {
        /// Upload id
        id: UploadId,
    },
    /// Take back a deletion
    Restore {
        /// Upload id
        id: UploadId,
    },
    /// Write the accepted bytes to a local file, verified
    Export {
        /// Upload id
        id: UploadId,
        /// The file to write; must not exist
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Another version of the same path
        #[arg(long, value_name = "N")]
        version: Option<u32>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// List audit entries, newest first
    List {
        /// Of this account
        #[arg(long)]
        account: Option<AccountName>,
        /// By this actor
        #[arg(long)]
        actor: Option<String>,
        /// About this upload
        #[arg(long)]
        upload: Option<UploadId>,
        /// About this path
        #[arg(long)]
        path: Option<String>,
        /// With this result
        #[arg(long, value_parser = ["ok", "refused", "failed"])]
        result: Option<String>,
        /// Since then: a time (2026-03-01T12:00Z), a day (2026-03-01) or a span (24h, 7d)
        #[arg(long, value_parser = crate::since::parse)]
        since: Option<Timestamp>,
        /// With the reference that the client was shown (7F3K2Q)
        #[arg(long, value_name = "REF")]
        r#ref: Option<String>,
        /// At most so many [default: 100 in a table, all as JSON]
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
        #[command(flatten)]
        json: Json,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token; it is printed once
    Create {
        /// Who gets it
        #[arg(long, value_name = "WHO")]
        name: TokenName,
        /// What it opens, with commas in between: events:read reads events; ops:read, ops:write and accounts:write open nothing yet
        #[arg(long, required = true, value_delimiter = ',', value_name = "SCOPES")]
        scopes: Vec<Scope>,
        /// The one partner whose events it shows; goes with events:read alone
        #[arg(long, value_name = "P")]
        partner: Option<PartnerName>,
        /// When it ends: a span (90d), a time (2026-03-01T12:00Z) or a day (2026-03-01) [default: never]
        #[arg(long, value_parser = crate::since::until, value_name = "WHEN")]
        expires: Option<Timestamp>,
        #[command(flatten)]
        json: Json,
    },
    /// List tokens, those that are revoked or expired included
    List(Json),
    /// Take a token back: from the next request on it opens nothing, and streams that it opened end within a second
    Revoke {
        /// Its id, as `token list` shows it
        id: TokenId,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory as _, error::ErrorKind};

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("dropgate").chain(line.split_whitespace()))
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_documented_line_parses() {
        let id = "0190aaaa-0000-7000-8000-000000000001";
        for line in [
            "run",
            "run --config c.toml --data-dir d --sftp-listen 127.0.0.1:0 --ops-listen 127.0.0.1:0 --health-listen [::1]:0",
            "gateway --health-listen 127.0.0.1:0",
            "--data-dir d worker",
            "ops --ops-listen 127.0.0.1:0 --log-format json",
            "config check --config c.toml",
            "config print --json",
            "hostkey generate",
            "hostkey generate --kind rsa --replace",
            "hostkey import key.pem",
            "hostkey show --json",
            "account add acme --partner acme",
            "account add acme --partner acme --password-stdin --public-key a.pub --public-key b.pub --temp-pattern *.tmp",
            "account add acme --partner acme --on-duplicate suppress --minimum-evidence renamed-from-temp",
            "account change acme --add-public-key a.pub --remove-public-key SHA256:x --temp-pattern *.tmp --on-duplicate deliver",
            "account add acme --partner acme --bytes-per-day 10GiB --uploads-per-day 1000 --total-bytes none",
            "account password acme --password-stdin",
            "account list --json --data-dir d",
            "account list --weak-algorithms --since 7d --json",
            "account show acme",
            "account disable acme",
            "account enable acme",
            "account remove acme",
            "inbox add --account acme --path report.csv --size 17",
            &format!(
                "inbox add --account acme --path /inbox/report.csv --size 17 --sha256 {}",
                "0a".repeat(32)
            ),
            "inbox remove --account acme --path report.csv",
            "inbox list --account acme --json",
            "uploads list --account acme --state failed --state processed --path /upload/x --since 24h --json",
            &format!("uploads show {id} --json"),
            &format!("uploads redeliver {id}"),
            &format!("uploads restore {id}"),
            &format!("uploads export {id} --out f --version 2"),
            &format!(
                "audit list --account a --actor b --upload {id} --path /x --result refused --since 2026-03-01 --ref 7F3K2Q"
            ),
            "token create --name erp --scopes events:read --partner acme --expires 90d --json",
            "token create --name alice --scopes ops:read,ops:write --scopes accounts:write",
            "token list --json",
            &format!("token revoke {id}"),
            "status --json",
        ] {
            assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
        }
    }

    #[test]
    fn wrong_usage_says_what_would_be_right() {
        for (line, kind, said) in [
            ("rum", ErrorKind::InvalidSubcommand, "run"),
            ("account add Acme --partner acme", ErrorKind::ValueValidation, "a-z"),
            ("account add acme --partner acme --bytes-per-day 10GB", ErrorKind::ValueValidation, "GiB"),
            ("inbox add --account acme --path x --size 1 --sha256 0a", ErrorKind::ValueValidation, "sha256"),
            ("inbox remove --account acme --path a/b", ErrorKind::ValueValidation, "directly in /inbox"),
            ("account add acme", ErrorKind::MissingRequiredArgument, "--partner"),
            ("uploads list --state eaten", ErrorKind::ValueValidation, "processed"),
            ("uploads show 17", ErrorKind::ValueValidation, "17"),
            ("uploads list --since soon", ErrorKind::ValueValidation, "24h"),
            ("audit list --result maybe", ErrorKind::InvalidValue, "refused"),
            ("token create --name erp --scopes events:write", ErrorKind::ValueValidation, "events:read"),
            ("token create --name erp", ErrorKind::MissingRequiredArgument, "--scopes"),
            (
                "token create --name erp --scopes events:read --expires 1999-01-01",
                ErrorKind::ValueValidation,
                "90d",
            ),
            ("run --sftp-port 1", ErrorKind::UnknownArgument, "--sftp-listen"),
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.kind(), kind, "{line}: {error}");
            assert!(error.to_string().contains(said), "{line}: {error}");
            assert_eq!(error.exit_code(), 2);
        }
    }
}
