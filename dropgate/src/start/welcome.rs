//! What a start prints on standard output: how to get in, who the server is, where files go.

use super::{Roles, first::Login, ready::Ready};
use crate::{cli::Global, config::Config};
use dropgate_gateway::ssh::hostkey::{HostKey, HostKeys};
use dropgate_schemas::account::AccountName;
use std::{
    fmt::Write as _,
    io::Write as _,
    net::{IpAddr, SocketAddr},
    path::Path,
};

/// Collected while the roles start.
#[derive(Default)]
pub(crate) struct Welcome {
    /// An account to log in with.
    pub(crate) account: Option<Login>,
    address: Option<SocketAddr>,
    keys: Vec<HostKey>,
    keys_made: bool,
    delivered: Option<String>,
    /// How this program is called again on the same data.
    again: Again,
}

/// The command line of another command on the same data, as it can be typed.
#[derive(Default)]
pub(crate) struct Again {
    program: String,
    options: String,
}

impl Again {
    /// As this process was called.
    pub(crate) fn of(global: &Global) -> Self {
        let program = std::env::args().next().unwrap_or_else(|| "dropgate".to_owned());
        let option = |name: &str, path: &Option<std::path::PathBuf>| {
            path.as_ref()
                .map_or(String::new(), |path| format!(" {name} {}", quoted(&path.display().to_string())))
        };
        let options = option("--config", &global.config) + &option("--data-dir", &global.data_dir);
        Self { program: quoted(&program), options }
    }

    fn with(&self, command: &str) -> String {
        format!("{} {command}{}", self.program, self.options)
    }
}

/// As a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:=@,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

impl Welcome {
    /// Nothing to say yet but how this program is called.
    pub(crate) fn new(again: Again) -> Self {
        Self { again, ..Self::default() }
    }

    /// Where SFTP is spoken, by whom.
    pub(crate) fn sftp(&mut self, address: SocketAddr, keys: &HostKeys, made: bool) {
        self.address = Some(address);
        self.keys = keys.keys().to_vec();
        self.keys_made = made;
    }

    /// Where files go.
    pub(crate) fn deliveries(&mut self, config: &Config) {
        self.delivered = Some(match config.destination.as_slice() {
            [] => {
                let (partner, account) = match &self.account {
                    Some(login) => (login.partner.as_str(), login.account.as_str()),
                    None => ("PARTNER", "ACCOUNT"),
                };
                let directory = absolute(&config.data_dir).join("delivered").join(partner).join(account);
                format!("{}, and listed in /sent", directory.display())
            }
            some => {
                let names: Vec<&str> = some.iter().map(|destination| destination.name().as_str()).collect();
                format!("{} as the routes of the config say", names.join(", "))
            }
        });
    }

    /// Prints what the roles of this process have to say.
    ///
    /// # Errors
    /// If standard output can't be written.
    pub(crate) fn print(&self, roles: Roles, ready: &Ready, config: &Config) -> anyhow::Result<()> {
        let text = self.text(roles, ready, config);
        let mut out = std::io::stdout().lock();
        // Nobody reading is no reason not to run.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        Ok(())
    }

    fn text(&self, roles: Roles, ready: &Ready, config: &Config) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(text, "{name:<12} {value}");
        };
        line("dropgate", &format!("{} (process {})", env!("CARGO_PKG_VERSION"), std::process::id()));
        if let Some(address) = self.address {
            line("sftp", &address.to_string());
            for (address, more) in ready.more_sftp.iter().zip(&config.gateway.more_listeners) {
                line("", &format!("{address} with {} algorithms", more.algorithms.name()));
            }
            for key in &self.keys {
                line("", &format!("{} {}", key.algorithm(), key.fingerprint_sha256()));
                line("", &format!("{} {}", key.algorithm(), key.fingerprint_md5()));
            }
        }
        if let Some(ops) = ready.ops {
            line("ops", &format!("http://{ops}  (/livez /readyz /metrics /api/v1/events)"));
        }
        if let Some(health) = ready.health {
            line("health", &format!("http://{health}  (/livez /readyz /metrics)"));
        }
        if let Some(delivered) = &self.delivered {
            line("delivers to", delivered);
        }
        line("data", &absolute(&config.data_dir).display().to_string());
        if let (Some(login), Some(address)) = (&self.account, self.address) {
            text.push_str(&self.login(login, address));
        }
        let token = self.account.as_ref().and_then(|login| login.token.as_deref());
        if let (Some(token), Some(ops)) = (token, ready.ops) {
            let _ = writeln!(
                text,
                "\nA token for the HTTP API, shown this once:\n\n    {token}\n\nEvents, for example:\n\n    \
                 curl -H 'Authorization: Bearer {token}' 'http://{ops}/api/v1/events?after=0'\n\nTokens for others:\n\n    {}",
                self.again.with("token create --name WHO --scopes events:read")
            );
        }
        if roles == Roles::All && self.account.is_none() {
            let add = self.again.with("account add NAME --partner PARTNER");
            let _ = writeln!(text, "\nNo account can log in. To add one:\n\n    {add}");
        }
        text.push('\n');
        text
    }

    fn login(&self, login: &Login, address: SocketAddr) -> String {
        let command = sftp_command(&login.account, address);
        let account = &login.account;
        let mut text = format!("\nUpload a file:\n\n    {command}\n    sftp> put FILE upload/\n\n");
        let _ = match &login.password {
            Some(password) => writeln!(
                text,
                "The first start made the account {account}. Its password, shown this once:\n\n    {password}\n"
            ),
            None => writeln!(
                text,
                "If its password is lost:\n\n    {}\n",
                self.again.with(&format!("account password {account}"))
            ),
        };
        let add = self.again.with("account add NAME --partner PARTNER");
        let _ = writeln!(text, "Accounts for others:\n\n    {add}\n");
        let new = if self.keys_made { "The host keys are new. " } else { "" };
        let _ = writeln!(
            text,
            "{new}When sftp asks whether to trust the host, compare its fingerprint with those above."
        );
        text
    }
}

/// The command that a client on this host types.
fn sftp_command(account: &AccountName, address: SocketAddr) -> String {
    let host = match address.ip() {
        ip if ip.is_unspecified() => "127.0.0.1".to_owned(),
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    format!("sftp -P {} {account}@{host}", address.port())
}

fn absolute(path: &Path) -> std::path::PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use dropgate_schemas::account::PartnerName;

    #[test]
    fn the_command_can_be_typed_as_it_stands() {
        let account: AccountName = "demo".parse().unwrap();
        for (address, command) in [
            ("127.0.0.1:2222", "sftp -P 2222 demo@127.0.0.1"),
            ("0.0.0.0:22", "sftp -P 22 demo@127.0.0.1"),
            ("[::1]:2222", "sftp -P 2222 demo@[::1]"),
        ] {
            assert_eq!(sftp_command(&account, address.parse().unwrap()), command);
        }
    }

    #[test]
    fn a_password_is_printed_when_it_was_made_and_never_again() {
        let mut welcome = Welcome::default();
        let address = "127.0.0.1:2222".parse().unwrap();
        welcome.sftp(address, &HostKeys::from_keys(Vec::new()), true);
        let account: AccountName = "demo".parse().unwrap();
        let partner: PartnerName = "acme".parse().unwrap();
        welcome.again = Again {
            program: "target/debug/dropgate".to_owned(),
            options: " --data-dir 'my data'".to_owned(),
        };
        welcome.account = Some(Login {
            account: account.clone(),
            partner: partner.clone(),
            password: Some("s3cret".to_owned()),
            token: Some("dgt_7_t0ken".to_owned()),
        });
        let config = Config::default();
        welcome.deliveries(&config);
        let ops = Some("127.0.0.1:8080".parse().unwrap());
        let ready = Ready { sftp: Some(address), ops, ..Ready::default() };
        let first = welcome.text(Roles::All, &ready, &config);
        for shown in [
            "s3cret",
            "sftp -P 2222 demo@127.0.0.1",
            "delivered/acme/demo",
            "http://127.0.0.1:8080",
            "curl -H 'Authorization: Bearer dgt_7_t0ken' 'http://127.0.0.1:8080/api/v1/events?after=0'",
            "token create --name WHO --scopes events:read --data-dir 'my data'",
        ] {
            assert!(first.contains(shown), "{shown}\n{first}");
        }
        welcome.account = Some(Login { account, partner, password: None, token: None });
        let later = welcome.text(Roles::All, &ready, &config);
        let again = "\n    target/debug/dropgate account password demo --data-dir 'my data'\n";
        assert!(later.contains(again) && !later.contains("s3cret") && !later.contains("dgt_"), "{later}");
    }
}
