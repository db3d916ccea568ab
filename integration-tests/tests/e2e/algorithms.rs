//! Listeners side by side, each with algorithms of its own: what each offers and refuses, and what is remembered of it.

use anyhow::{Context as _, Result, ensure};
use dropgate_integration_tests::harness::{
    Gate, Setup,
    cli::finish,
    clients::installed,
    gate::{SETTLE, password},
    http::get,
    openssh::OpenSsh,
    sshd::{HostKeys, keygen},
    until::until,
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::Value;
use std::{fmt::Write as _, net::SocketAddr, process::Command, time::Duration};

/// What one profile offers, as README.md says.
struct Profile {
    name: &'static str,
    kex: &'static [&'static str],
    host_keys: &'static [&'static str],
    macs: &'static [&'static str],
}

const CIPHERS: [&str; 6] = [
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
];
const SHA2_MACS: [&str; 4] =
    ["hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512"];

const PROFILES: [Profile; 3] = [
    Profile {
        name: "modern",
        kex: &[
            "mlkem768x25519-sha256",
            "curve25519-sha256",
            "curve25519-sha256@libssh.org",
            "diffie-hellman-group16-sha512",
        ],
        host_keys: &["ssh-ed25519", "rsa-sha2-512", "rsa-sha2-256"],
        macs: &SHA2_MACS,
    },
    Profile {
        name: "compatible",
        kex: &[
            "mlkem768x25519-sha256",
            "curve25519-sha256",
            "curve25519-sha256@libssh.org",
            "diffie-hellman-group16-sha512",
            "ecdh-sha2-nistp256",
            "ecdh-sha2-nistp384",
            "ecdh-sha2-nistp521",
            "diffie-hellman-group14-sha256",
        ],
        host_keys: &[
            "ssh-ed25519",
            "rsa-sha2-512",
            "rsa-sha2-256",
            "ecdsa-sha2-nistp256",
            "ecdsa-sha2-nistp384",
            "ecdsa-sha2-nistp521",
        ],
        macs: &SHA2_MACS,
    },
    Profile {
        name: "legacy",
        kex: &[
            "mlkem768x25519-sha256",
            "curve25519-sha256",
            "curve25519-sha256@libssh.org",
            "diffie-hellman-group16-sha512",
            "ecdh-sha2-nistp256",
            "ecdh-sha2-nistp384",
            "ecdh-sha2-nistp521",
            "diffie-hellman-group14-sha256",
            "diffie-hellman-group14-sha1",
        ],
        host_keys: &[
            "ssh-ed25519",
            "rsa-sha2-512",
            "rsa-sha2-256",
            "ecdsa-sha2-nistp256",
            "ecdsa-sha2-nistp384",
            "ecdsa-sha2-nistp521",
            "ssh-rsa",
        ],
        macs: &[
            "hmac-sha2-256-etm@openssh.com",
            "hmac-sha2-512-etm@openssh.com",
            "hmac-sha2-256",
            "hmac-sha2-512",
            "hmac-sha1",
        ],
    },
];

/// In none of them.
const NOWHERE: [(&str, &str); 8] = [
    ("MACs", "hmac-sha1-96"),
    ("MACs", "hmac-md5"),
    ("MACs", "umac-64@openssh.com"),
    ("Ciphers", "aes128-cbc"),
    ("Ciphers", "3des-cbc"),
    ("KexAlgorithms", "diffie-hellman-group1-sha1"),
    ("KexAlgorithms", "diffie-hellman-group-exchange-sha1"),
    ("KexAlgorithms", "diffie-hellman-group-exchange-sha256"),
];

impl Profile {
    /// Every algorithm, with OpenSSH's option that names it.
    fn all(&self) -> Vec<(&'static str, &'static str)> {
        let of = |option: &'static str, names: &[&'static str]| {
            names.iter().map(move |name| (option, *name)).collect::<Vec<_>>()
        };
        [
            of("KexAlgorithms", self.kex),
            of("HostKeyAlgorithms", self.host_keys),
            of("Ciphers", &CIPHERS),
            of("MACs", self.macs),
        ]
        .concat()
    }
}

/// One gate that listens with each profile.
struct Doors {
    gate: Gate,
    addresses: Vec<SocketAddr>,
    /// Lines of `known_hosts` for the host keys that not every gate has.
    ecdsa: String,
}

async fn open_doors() -> Result<Doors> {
    let config = "[gateway.listener.limits]\nnew_per_second_per_source = 1000\nnew_burst_per_source = 1000\n\
                  [[gateway.more_listeners]]\nlisten = \"127.0.0.1:0\"\nalgorithms = \"compatible\"\n\
                  [[gateway.more_listeners]]\nlisten = \"127.0.0.1:0\"\nalgorithms = \"legacy\"\n";
    let names: Vec<&str> = PROFILES.iter().map(|profile| profile.name).collect();
    let mut gate = Gate::prepare(Setup::default().config(config).accounts(&names)).await?;
    let mut public_keys = Vec::new();
    for bits in ["256", "384", "521"] {
        let file = gate.path(format!("host_ecdsa{bits}"));
        keygen(&["-t", "ecdsa", "-b", bits], &file)?;
        gate.cli.run(&["hostkey", "import", &file.display().to_string()]).await?;
        public_keys.push(std::fs::read_to_string(file.with_extension("pub"))?);
    }
    gate.launch().await?;
    let ready: Value = serde_json::from_slice(&std::fs::read(gate.data().join("ready.json"))?)?;
    let mut addresses = vec![gate.sftp()?];
    for more in ready["more_sftp"].as_array().context("ready.json names no further listeners")? {
        addresses.push(more.as_str().context("no text")?.parse()?);
    }
    ensure!(addresses.len() == PROFILES.len(), "{addresses:?}");
    let mut ecdsa = String::new();
    for address in &addresses {
        for key in &public_keys {
            writeln!(ecdsa, "[{}]:{} {}", address.ip(), address.port(), key.trim())?;
        }
    }
    Ok(Doors { gate, addresses, ecdsa })
}

impl Doors {
    /// OpenSSH's client with one algorithm and no other of its kind.
    fn client(&self, address: SocketAddr, account: &str, option: &str, name: &str) -> Result<OpenSsh> {
        let mut client = OpenSsh::with_key(address, account, &self.gate.key(account))?;
        client.trust(&self.ecdsa)?;
        client.more = vec!["-o".to_owned(), format!("{option}={name}")];
        if option == "MACs" {
            // The others bring their own.
            client.more.extend(["-o".to_owned(), "Ciphers=aes128-ctr".to_owned()]);
        }
        Ok(client)
    }

    /// Uploads a file of its own over a connection that can only use this algorithm.
    async fn upload(&self, address: SocketAddr, account: &str, option: &str, name: &str) -> Result<()> {
        let remote = remote(option, name);
        if knows(option, name).await? {
            let client = self.client(address, account, option, name)?;
            std::fs::write(client.local("file"), name)?;
            let script = format!("put {} {remote}\n", client.local("file").display());
            client.sftp(&script).await.with_context(|| format!("{account}: {option}={name}"))?;
        } else {
            ensure!(option == "KexAlgorithms", "no client here knows {option}={name}");
            self.upload_by_paramiko(address, account, name, &remote).await?;
        }
        Ok(())
    }

    /// For what this OpenSSH is too old for.
    async fn upload_by_paramiko(
        &self,
        address: SocketAddr,
        account: &str,
        kex: &str,
        remote: &str,
    ) -> Result<()> {
        let script = "import io, paramiko, sys\n\
                      host, port, account, secret, kex, remote = sys.argv[1:]\n\
                      transport = paramiko.Transport((host, int(port)))\n\
                      transport.get_security_options().kex = (kex,)\n\
                      transport.connect(username=account, password=secret)\n\
                      paramiko.SFTPClient.from_transport(transport).putfo(io.BytesIO(kex.encode()), remote)\n\
                      transport.close()\n";
        let mut command = Command::new(installed("python/bin/python3")?);
        command.args(["-W", "ignore", "-c", script, &address.ip().to_string(), &address.port().to_string()]);
        command.args([account, &password(account), kex, remote]);
        let outcome = finish(command, b"", Duration::from_secs(60)).await?;
        ensure!(outcome.status.success(), "paramiko, {kex}:\n{}", outcome.all());
        Ok(())
    }
}

fn remote(option: &str, name: &str) -> String {
    format!("/upload/{option}.{name}")
}

/// Whether the OpenSSH of this machine has an algorithm.
async fn knows(option: &str, name: &str) -> Result<bool> {
    let mut command = Command::new("ssh");
    command.args(["-Q", option]);
    let outcome = finish(command, b"", Duration::from_secs(20)).await?;
    ensure!(outcome.status.success(), "ssh -Q {option}: {}", outcome.all());
    Ok(outcome.stdout.lines().any(|line| line == name))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_algorithm_alone_uploads_a_file() -> Result<()> {
    let doors = open_doors().await?;
    let all = PROFILES.iter().zip(&doors.addresses).flat_map(|(profile, address)| {
        profile.all().into_iter().map(move |(option, name)| (profile.name, *address, option, name))
    });
    stream::iter(all)
        .map(|(account, address, option, name)| doors.upload(address, account, option, name))
        .buffer_unordered(4)
        .try_collect::<()>()
        .await?;
    let uploads = doors.gate.uploads().await?;
    for profile in &PROFILES {
        // What came is there, and the login says by what it came, a moment later.
        let all = profile.all().len();
        let logins = until(SETTLE, "an audit entry for each login", || async {
            let mut logins = doors.gate.audit(&["--account", profile.name]).await?;
            logins.retain(|entry| entry["action"] == "session.login");
            Ok((logins.len() >= all).then_some(logins))
        })
        .await?;
        let logins: Vec<&str> =
            logins.iter().filter_map(|entry| entry["detail"]["algorithms"].as_str()).collect();
        for (option, name) in profile.all() {
            let path = remote(option, name);
            let row = uploads.iter().find(|row| row.account == profile.name && row.path == path);
            let row = row.with_context(|| format!("{}: no upload at {path}", profile.name))?;
            ensure!(row.is_accepted() && row.size == Some(name.len() as u64), "{row:?}");
            let recorded = logins.iter().any(|names| names.split(' ').any(|recorded| recorded == name));
            ensure!(recorded, "{}: no login with {name} among {logins:?}", profile.name);
        }
    }
    who_needs_what_only_legacy_offers(&doors.gate).await?;
    doors.gate.finish().await
}

async fn who_needs_what_only_legacy_offers(gate: &Gate) -> Result<()> {
    let weak = gate.cli.json(&["account", "list", "--weak-algorithms"]).await?;
    let weak = weak.as_array().context("no list")?;
    ensure!(weak.len() == 1, "only one account used SHA-1: {weak:?}");
    let found = &weak[0];
    ensure!(found["account"] == "legacy" && found["partner"] == "legacy-corp", "{found}");
    ensure!(found["logins"] == 3, "one login for each: {found}");
    ensure!(
        found["weak_algorithms"]
            == serde_json::json!(["diffie-hellman-group14-sha1", "hmac-sha1", "ssh-rsa"]),
        "{found}"
    );
    ensure!(found["client"].as_str().is_some_and(|client| client.starts_with("SSH-2.0-OpenSSH_")), "{found}");
    let table = gate.cli.run(&["account", "list", "--weak-algorithms"]).await?;
    ensure!(table.contains("legacy-corp") && !table.contains("modern-corp"), "{table}");
    let future = ["account", "list", "--weak-algorithms", "--since", "2099-01-01"];
    ensure!(gate.cli.run(&future).await?.starts_with("no account has used a weak algorithm"));
    let metrics = get(gate.ops()?, "/metrics", None).await?.body;
    ensure!(metrics.contains("\ndropgate_logins_weak_total 3\n"), "{metrics}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_profile_does_not_offer_is_refused() -> Result<()> {
    let doors = open_doors().await?;
    let everything = PROFILES[2].all();
    let mut refused = Vec::new();
    for (profile, address) in PROFILES.iter().zip(&doors.addresses) {
        let offered = profile.all();
        let others = everything.iter().filter(|one| !offered.contains(one));
        refused.extend(others.chain(&NOWHERE).map(|(option, name)| (profile.name, *address, *option, *name)));
    }
    stream::iter(refused)
        .map(|(account, address, option, name)| {
            let doors = &doors;
            async move {
                ensure!(knows(option, name).await?, "{option}={name} would be refused by the client already");
                let mut client = doors.client(address, account, option, name)?;
                // Louder than the silence that was asked for.
                client.more.push("-v".to_owned());
                let outcome = client.try_sftp("pwd\n").await?;
                let said = outcome.all();
                ensure!(
                    !outcome.status.success()
                        && said.contains("no matching")
                        && said.contains("Unable to negotiate"),
                    "{account}: {option}={name}: {said}"
                );
                anyhow::Ok(())
            }
        })
        .buffer_unordered(4)
        .try_collect::<()>()
        .await?;
    ensure!(doors.gate.uploads().await?.is_empty());
    doors.gate.finish().await
}

/// `ssh-audit` looks at the program with its own defaults, limits included.
#[tokio::test]
async fn ssh_audit_finds_nothing_to_fail() -> Result<()> {
    let gate = Gate::start(Setup::default()).await?;
    let address = gate.sftp()?;
    let mut command = Command::new(installed("python/bin/ssh-audit")?);
    command.args(["-jj", "-p", &address.port().to_string(), &address.ip().to_string()]);
    let outcome = finish(command, b"", Duration::from_secs(120)).await?;
    // 0: all good; 2: warnings; 3: failures; others: it did not get that far.
    ensure!([0, 2].contains(&outcome.code()), "ssh-audit ended with {}:\n{}", outcome.status, outcome.all());
    let report: Value = serde_json::from_str(&outcome.stdout).with_context(|| outcome.all())?;
    let modern = &PROFILES[0];
    let mut kex: Vec<&str> = modern.kex.to_vec();
    kex.extend(["ext-info-s", "kex-strict-s-v00@openssh.com"]);
    for (kind, offered) in [
        ("kex", kex),
        ("key", modern.host_keys.to_vec()),
        ("enc", CIPHERS.to_vec()),
        ("mac", modern.macs.to_vec()),
    ] {
        let found = report[kind].as_array().with_context(|| format!("no {kind}: {report}"))?;
        let names: Vec<&str> = found.iter().filter_map(|one| one["algorithm"].as_str()).collect();
        ensure!(names == offered, "{kind}: {names:?}");
        for one in found {
            let notes = |grade: &str| one["notes"][grade].as_array().cloned().unwrap_or_default();
            ensure!(notes("fail").is_empty(), "{one}");
            for warning in notes("warn") {
                let known = [
                    "does not provide protection against post-quantum attacks",
                    "using encrypt-and-MAC mode",
                ];
                ensure!(warning.as_str().is_some_and(|text| known.contains(&text)), "{one}");
            }
        }
    }
    ensure!(report["cves"].as_array().is_some_and(Vec::is_empty), "{report}");
    ensure!(report["banner"]["raw"] == concat!("SSH-2.0-Dropgate_", env!("CARGO_PKG_VERSION")), "{report}");
    let notes = report["additional_notes"].to_string();
    ensure!(notes.contains("this target properly supports the strict key exchange method"), "{notes}");
    ensure!(!notes.contains("insufficient connection throttling"), "{notes}");
    gate.finish().await
}

/// The host keys of `hostkey show` are those of every listener.
#[tokio::test]
async fn hostkey_show_has_a_line_for_each_listener() -> Result<()> {
    let config = "[[gateway.more_listeners]]\nlisten = \"127.0.0.1:2201\"\nalgorithms = \"legacy\"\n";
    let gate = Gate::prepare(Setup::default().config(config)).await?;
    let shown = gate.cli.run(&["hostkey", "show"]).await?;
    for line in ["[127.0.0.1]:2222 ssh-ed25519 ", "[127.0.0.1]:2201 ssh-ed25519 "] {
        ensure!(shown.contains(line), "{shown}");
    }
    let public = std::fs::read_to_string(format!("{}.pub", HostKeys::shared()?.ed25519.display()))?;
    let key = public.split(' ').nth(1).context("no key")?;
    ensure!(shown.matches(key).count() == 2, "{shown}");
    gate.finish().await
}
