//! Settings of a listener and what can be wrong with them.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::LimitsConfig;
use crate::ssh::{AlgorithmProfile, AuthConfig, SshConfig};

/// What servers call themselves that clients treat in a special way: WinSCP asks the first three for SFTP version 6 (the
/// other two are their names in fact), and OpenSSH's clients work around faults of old versions of its server.
const SPECIAL_IDENTS: [&str; 5] = ["openssh", "proftpd", "bitvise", "mod_sftp", "flowssh"];

/// One listening address with everything that guards it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListenerConfig {
    /// Address and port; port 0 takes a free one. Default `127.0.0.1:2222`.
    pub listen: SocketAddr,
    /// Caps on connections and sessions.
    pub limits: LimitsConfig,
    /// Identification, algorithms, channels.
    pub ssh: SshConfig,
    /// Tries, delays, deadlines of logins.
    pub auth: AuthConfig,
    /// Seconds within which the client's identification string must arrive. Default 10.
    pub identification_seconds: u64,
    /// Seconds from accept within which the login must succeed, key exchange included. Default 60.
    pub login_grace_seconds: u64,
    /// Bytes that a client may send before its login succeeded. Default 262144.
    pub before_login_bytes: u64,
    /// Packets that a client may send before its login succeeded. Default 100.
    pub before_login_packets: u64,
    /// Seconds without a request after which a session is closed; 0: never. Default 900.
    pub idle_seconds: u64,
    /// Seconds of silence after which the client is asked whether it still lives; 0: never. Default 30.
    pub keepalive_seconds: u64,
    /// Unanswered questions after which a session is closed. Default 3.
    pub keepalive_tries: usize,
    /// Seconds that an engine may take to accept data before the session is closed; longer than the engine's own patience
    /// with storage. Default 45.
    pub storage_stall_seconds: u64,
    /// Seconds that requests in flight get to finish after their client hung up. Default 60.
    pub finish_seconds: u64,
    /// Seconds that busy sessions get at shutdown before they are ended. Default 30.
    pub drain_seconds: u64,
}

impl Default for ListenerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 2222)),
            limits: LimitsConfig::default(),
            ssh: SshConfig::default(),
            auth: AuthConfig::default(),
            identification_seconds: 10,
            login_grace_seconds: 60,
            before_login_bytes: 256 * 1024,
            before_login_packets: 100,
            idle_seconds: 900,
            keepalive_seconds: 30,
            keepalive_tries: 3,
            storage_stall_seconds: 45,
            finish_seconds: 60,
            drain_seconds: 30,
        }
    }
}

/// One more listening address, for clients that need other algorithms than those of `[gateway.listener]`. Everything else is
/// as it is there, and the limits are common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoreListenerConfig {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The set of algorithms: `modern`, `compatible` or `legacy`. Default `modern`.
    #[serde(default)]
    pub algorithms: AlgorithmProfile,
}

impl MoreListenerConfig {
    /// The whole of its settings, beside those of `[gateway.listener]`.
    #[must_use]
    pub fn beside(&self, first: &ListenerConfig) -> ListenerConfig {
        let mut config = ListenerConfig { listen: self.listen, ..first.clone() };
        config.ssh.algorithms = self.algorithms;
        config
    }
}

/// A setting that can't work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} = {value}: {why}")]
pub struct SettingError {
    /// The key below its section, such as `ssh.window_bytes`.
    pub key: &'static str,
    /// Its value.
    pub value: String,
    /// What to write instead.
    pub why: &'static str,
}

impl ListenerConfig {
    /// Everything in these settings that can't work.
    #[must_use]
    pub fn problems(&self) -> Vec<SettingError> {
        let mut problems = Vec::new();
        let mut check = |good: bool, key, value: String, why| {
            if !good {
                problems.push(SettingError { key, value, why });
            }
        };
        let printable = |c: char| c.is_ascii_graphic() && c != '-';
        let ssh = &self.ssh;
        check(
            !ssh.ident.is_empty() && ssh.ident.len() <= 200 && ssh.ident.chars().all(printable),
            "ssh.ident",
            format!("{:?}", ssh.ident),
            "write 1 to 200 printable ASCII characters without spaces and `-`, such as Dropgate_1.0",
        );
        let ident = ssh.ident.to_ascii_lowercase();
        check(
            !SPECIAL_IDENTS.iter().any(|special| ident.contains(special)),
            "ssh.ident",
            format!("{:?}", ssh.ident),
            "write a name without OpenSSH, ProFTPD, mod_sftp, Bitvise and FlowSsh: clients take it for one of these servers \
             and ask for what is not there",
        );
        check(
            (1 << 20..=1 << 30).contains(&ssh.rekey_bytes),
            "ssh.rekey_bytes",
            ssh.rekey_bytes.to_string(),
            "write 1048576 (1 MiB) to 1073741824 (1 GiB)",
        );
        check(
            (64 << 10..=64 << 20).contains(&ssh.window_bytes),
            "ssh.window_bytes",
            ssh.window_bytes.to_string(),
            "write 65536 (64 KiB) to 67108864 (64 MiB)",
        );
        check(
            (64 << 10..=64 << 20).contains(&ssh.outbox_bytes),
            "ssh.outbox_bytes",
            ssh.outbox_bytes.to_string(),
            "write 65536 (64 KiB) to 67108864 (64 MiB)",
        );
        check(
            (1..=1000).contains(&ssh.channels_per_connection),
            "ssh.channels_per_connection",
            ssh.channels_per_connection.to_string(),
            "write 1 to 1000",
        );
        for (key, value) in
            [("auth.password_tries", self.auth.password_tries), ("auth.tries", self.auth.tries)]
        {
            check(value > 0, key, value.to_string(), "write 1 or more: with 0 nobody could log in");
        }
        for (key, value) in [
            ("auth.lookup_seconds", self.auth.lookup_seconds),
            ("identification_seconds", self.identification_seconds),
            ("login_grace_seconds", self.login_grace_seconds),
            ("storage_stall_seconds", self.storage_stall_seconds),
            ("finish_seconds", self.finish_seconds),
        ] {
            check((1..=86_400).contains(&value), key, value.to_string(), "write 1 to 86400 seconds");
        }
        for (key, value) in [
            ("idle_seconds", self.idle_seconds),
            ("keepalive_seconds", self.keepalive_seconds),
            ("drain_seconds", self.drain_seconds),
        ] {
            check(value <= 86_400 * 365, key, value.to_string(), "write at most 31536000 seconds (a year)");
        }
        check(
            self.auth.failure_delay_ms <= 30_000,
            "auth.failure_delay_ms",
            self.auth.failure_delay_ms.to_string(),
            "write at most 30000 (30 seconds)",
        );
        check(
            self.before_login_bytes >= 16 * 1024 && self.before_login_packets >= 20,
            "before_login_bytes, before_login_packets",
            format!("{}, {}", self.before_login_bytes, self.before_login_packets),
            "write at least 16384 bytes and 20 packets: a login needs that much",
        );
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_good_and_an_empty_section_is_the_defaults() {
        assert_eq!(ListenerConfig::default().problems(), []);
        assert_eq!(serde_json::from_str::<ListenerConfig>("{}").unwrap(), ListenerConfig::default());
    }

    #[test]
    fn unknown_keys_are_errors_at_every_depth() {
        for text in [r#"{"lisen": "127.0.0.1:1"}"#, r#"{"ssh": {"idnet": ""}}"#, r#"{"limits": {"x": 1}}"#] {
            let error = serde_json::from_str::<ListenerConfig>(text).unwrap_err().to_string();
            assert!(error.contains("unknown field"), "{error}");
        }
    }

    #[test]
    fn each_problem_names_its_key_and_a_remedy() {
        let mut config = ListenerConfig::default();
        config.ssh.ident = "has space".into();
        config.ssh.rekey_bytes = 5;
        config.login_grace_seconds = 0;
        config.auth.tries = 0;
        let problems = config.problems();
        let keys: Vec<&str> = problems.iter().map(|problem| problem.key).collect();
        assert_eq!(keys, ["ssh.ident", "ssh.rekey_bytes", "auth.tries", "login_grace_seconds"]);
        assert!(problems.iter().all(|problem| problem.why.starts_with("write ")));
    }

    #[test]
    fn an_ident_that_clients_misunderstand_is_refused() {
        for (ident, good) in [
            ("Dropgate_0.1.0", true),
            ("Gate", true),
            ("x".repeat(200).as_str(), true),
            ("x".repeat(201).as_str(), false),
            ("", false),
            ("two words", false),
            ("with-hyphen", false),
            ("gr\u{fc}n", false),
            ("tab\t", false),
            ("line\r\nSSH-2.0-other", false),
            ("OpenSSH_9.9", false),
            ("myopenssh", false),
            ("ProFTPD", false),
            ("mod_sftp", false),
            ("1.0_FlowSsh:_Bitvise", false),
        ] {
            let mut config = ListenerConfig::default();
            config.ssh.ident = ident.to_owned();
            assert_eq!(config.problems().is_empty(), good, "{ident:?}");
        }
    }
}
