//! Host keys: made on first start, imported, loaded and shown. One OpenSSH private key file per algorithm
//! (`ssh_host_ed25519_key`, `ssh_host_rsa_key`, ...), readable by the owner only.

use std::fmt;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dropgate_backends::{SecretError, SecretStore};
use russh::keys::ssh_key::{Algorithm, EcdsaCurve, HashAlg, LineEnding, PrivateKey};

use super::AlgorithmProfile;

/// The kinds of host key that can be generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostKeyKind {
    /// Ed25519.
    Ed25519,
    /// RSA with a modulus of 4096 bits; signs with SHA-512 and SHA-256. Partners with older software pin it.
    Rsa4096,
}

impl HostKeyKind {
    /// The kinds that a new installation gets.
    pub const DEFAULT: [Self; 2] = [Self::Ed25519, Self::Rsa4096];
}

/// Why a host key could not be made, read or stored. The text names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum HostKeyError {
    /// The file system said no.
    #[error("host key {path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A key file is readable or writable by others.
    #[error(
        "host key {path} has mode {mode:04o}: others may read it. Run `chmod 600 {path}` (and consider the key burnt)"
    )]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds no private key that we understand.
    #[error(
        "host key {path}: not a private key in OpenSSH, PEM (PKCS#1) or PKCS#8 form, or damaged ({reason}); \
         encrypted keys must be decrypted first, for example with `ssh-keygen -p -N ''`"
    )]
    Malformed {
        /// The key file.
        path: PathBuf,
        /// What the parser said.
        reason: String,
    },
    /// The key's algorithm or size is not acceptable for a host key.
    #[error("host key {path}: {what} is not accepted; use Ed25519, RSA of at least 3072 bits, or ECDSA")]
    Unsuitable {
        /// The key file.
        path: PathBuf,
        /// Algorithm and size found.
        what: String,
    },
    /// There is a key of this kind already.
    #[error(
        "host key {path} exists already; partners have pinned it. Use the overwrite option to replace it"
    )]
    Exists {
        /// The key file.
        path: PathBuf,
    },
    /// The cryptographic library could not make a key.
    #[error("generating a {0} host key failed")]
    Generation(&'static str),
    /// A secret with a key could not be read.
    #[error("host key: {0}")]
    Secret(#[from] SecretError),
    /// Two secrets hold keys of one kind.
    #[error(
        "host key {reference}: it is of the same kind as {other}; name one key of each kind in host_keys"
    )]
    Twice {
        /// The reference of the second.
        reference: String,
        /// The reference of the first.
        other: String,
    },
    /// No key is left that the listener's algorithm profile offers.
    #[error(
        "no host key for the algorithm profile in {path}; run `dropgate hostkey generate`, or name one in host_keys"
    )]
    NoneUsable {
        /// The directory of the keys.
        path: PathBuf,
    },
}

/// One host key with its file name. Prints as its fingerprint, never as the key.
#[derive(Clone)]
pub struct HostKey {
    key: PrivateKey,
    file_name: &'static str,
}

impl fmt::Debug for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostKey({} {})", self.algorithm(), self.fingerprint_sha256())
    }
}

impl HostKey {
    /// Makes a new key. RSA takes up to some seconds of CPU: call it outside the async runtime's workers.
    ///
    /// # Errors
    /// [`HostKeyError::Generation`] when the cryptographic library fails.
    pub fn generate(kind: HostKeyKind) -> Result<Self, HostKeyError> {
        let mut key = match kind {
            HostKeyKind::Ed25519 => PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519)
                .map_err(|_| HostKeyError::Generation("Ed25519"))?,
            HostKeyKind::Rsa4096 => generate_rsa().ok_or(HostKeyError::Generation("RSA-4096"))?,
        };
        key.set_comment("dropgate");
        Self::new(key, Path::new("(new)"))
    }

    /// Parses an unencrypted private key in OpenSSH, PEM (PKCS#1) or PKCS#8 form; `path` is used in errors only.
    ///
    /// # Errors
    /// [`HostKeyError::Malformed`] or [`HostKeyError::Unsuitable`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, HostKeyError> {
        let key = russh::keys::decode_secret_key(text, None)
            .map_err(|e| HostKeyError::Malformed { path: path.to_owned(), reason: e.to_string() })?;
        Self::new(key, path)
    }

    fn new(key: PrivateKey, path: &Path) -> Result<Self, HostKeyError> {
        let unsuitable = |what: String| HostKeyError::Unsuitable { path: path.to_owned(), what };
        let file_name = match key.algorithm() {
            Algorithm::Ed25519 => "ssh_host_ed25519_key",
            Algorithm::Rsa { .. } => {
                let bits = key.key_data().rsa().map_or(0, |rsa| rsa.key_size());
                if bits < 3072 {
                    return Err(unsuitable(format!("RSA of {bits} bits")));
                }
                "ssh_host_rsa_key"
            }
            Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 } => "ssh_host_ecdsa_key",
            Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 } => "ssh_host_ecdsa384_key",
            Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 } => "ssh_host_ecdsa521_key",
            other => return Err(unsuitable(other.to_string())),
        };
        Ok(Self { key, file_name })
    }

    /// The algorithm's name in SSH, for example `ssh-ed25519`.
    pub fn algorithm(&self) -> String {
        self.key.algorithm().to_string()
    }

    /// `SHA256:` and the unpadded base64 of the public key's digest, as OpenSSH prints it.
    pub fn fingerprint_sha256(&self) -> String {
        self.key.fingerprint(HashAlg::Sha256).to_string()
    }

    /// `MD5:` and colon-separated hex, as older clients print it. For comparison by eye only.
    pub fn fingerprint_md5(&self) -> String {
        let digest = md5::compute(self.public_blob());
        let hex: Vec<String> = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("MD5:{}", hex.join(":"))
    }

    /// A line for `known_hosts`. A port other than 22 gives the `[host]:port` form.
    pub fn known_hosts_line(&self, host: &str, port: u16) -> String {
        let host = if port == 22 { host.to_owned() } else { format!("[{host}]:{port}") };
        format!("{host} {} {}", self.algorithm(), STANDARD.encode(self.public_blob()))
    }

    /// The public key in `authorized_keys` form.
    pub fn public_line(&self) -> String {
        format!("{} {}", self.algorithm(), STANDARD.encode(self.public_blob()))
    }

    fn public_blob(&self) -> Vec<u8> {
        // Encoding a public key into memory has no way to fail; an empty blob would show as a wrong fingerprint.
        self.key.public_key().to_bytes().unwrap_or_default()
    }

    /// Writes the key into `directory` under its fixed name, mode 0600: temporary file, fsync, rename, fsync of the
    /// directory, so that a crash leaves the old key or the new one.
    ///
    /// # Errors
    /// [`HostKeyError::Exists`] unless `overwrite`; [`HostKeyError::Io`].
    pub fn store(&self, directory: &Path, overwrite: bool) -> Result<PathBuf, HostKeyError> {
        let path = directory.join(self.file_name);
        if !overwrite && path.exists() {
            return Err(HostKeyError::Exists { path });
        }
        let text = self
            .key
            .to_openssh(LineEnding::LF)
            .map_err(|e| HostKeyError::Malformed { path: path.clone(), reason: e.to_string() })?;
        write_private(directory, &path, text.as_bytes())
            .map_err(|source| HostKeyError::Io { path: path.clone(), source })?;
        Ok(path)
    }
}

fn generate_rsa() -> Option<PrivateKey> {
    // aws-lc makes a 4096-bit key in a fraction of the time that the pure Rust implementation takes.
    let pair = RsaKeyPair::generate(KeySize::Rsa4096).ok()?;
    let der = pair.as_der().ok()?;
    let der: &Pkcs8V1Der<'_> = &der;
    let pem = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        STANDARD.encode(der.as_ref())
    );
    russh::keys::decode_secret_key(&pem, None).ok()
}

fn write_private(directory: &Path, path: &Path, content: &[u8]) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let temporary = path.with_extension(format!("new-{}", std::process::id()));
    let written = (|| {
        let _ = std::fs::remove_file(&temporary);
        let mut file =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        std::fs::File::open(directory)?.sync_all()
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

/// The host keys of one directory.
#[derive(Clone, Debug)]
pub struct HostKeys {
    keys: Vec<HostKey>,
    directory: PathBuf,
}

impl HostKeys {
    const FILES: [&'static str; 5] = [
        "ssh_host_ed25519_key",
        "ssh_host_rsa_key",
        "ssh_host_ecdsa_key",
        "ssh_host_ecdsa384_key",
        "ssh_host_ecdsa521_key",
    ];

    /// Loads every key file of the directory; a missing directory is an empty set.
    ///
    /// # Errors
    /// Any unreadable, damaged or exposed key is an error: starting with fewer keys than yesterday would look to
    /// partners like an attack.
    pub fn load(directory: &Path) -> Result<Self, HostKeyError> {
        let mut keys = Vec::new();
        for name in Self::FILES {
            let path = directory.join(name);
            match std::fs::metadata(&path) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(source) => return Err(HostKeyError::Io { path, source }),
                Ok(metadata) => {
                    let mode = metadata.permissions().mode() & 0o777;
                    if mode & 0o077 != 0 {
                        return Err(HostKeyError::Exposed { path, mode });
                    }
                }
            }
            let text = std::fs::read_to_string(&path)
                .map_err(|source| HostKeyError::Io { path: path.clone(), source })?;
            keys.push(HostKey::parse(&text, &path)?);
        }
        Ok(Self { keys, directory: directory.to_owned() })
    }

    /// [`HostKeys::load`], and on first start (no key at all) makes the default kinds. Returns whether keys were made.
    ///
    /// Takes up to some seconds of CPU on first start: call it outside the async runtime's workers.
    ///
    /// # Errors
    /// As [`HostKeys::load`] and [`HostKey::store`].
    pub fn load_or_generate(directory: &Path) -> Result<(Self, bool), HostKeyError> {
        let mut found = Self::load(directory)?;
        if !found.keys.is_empty() {
            return Ok((found, false));
        }
        for kind in HostKeyKind::DEFAULT {
            let key = HostKey::generate(kind)?;
            key.store(directory, false)?;
            found.keys.push(key);
        }
        Ok((found, true))
    }

    /// The keys behind secret references, in the order Ed25519, RSA, ECDSA.
    ///
    /// # Errors
    /// Any secret that is missing, can't be read or holds no suitable key is an error: starting with fewer keys than
    /// yesterday would look to partners like an attack.
    pub async fn resolve(references: &[String], secrets: &dyn SecretStore) -> Result<Self, HostKeyError> {
        let mut keys: Vec<(HostKey, &String)> = Vec::new();
        for reference in references {
            let secret = secrets.resolve(reference).await?;
            let path = Path::new(reference);
            let text = std::str::from_utf8(secret.expose()).map_err(|_| HostKeyError::Malformed {
                path: path.to_owned(),
                reason: "not a text".to_owned(),
            })?;
            let key = HostKey::parse(text, path)?;
            if let Some((_, other)) = keys.iter().find(|(other, _)| other.file_name == key.file_name) {
                return Err(HostKeyError::Twice { reference: reference.clone(), other: (*other).clone() });
            }
            keys.push((key, reference));
        }
        keys.sort_by_key(|(key, _)| Self::FILES.iter().position(|name| *name == key.file_name));
        let keys = keys.into_iter().map(|(key, _)| key).collect();
        Ok(Self { keys, directory: PathBuf::from(format!("[{}]", references.join(", "))) })
    }

    /// Keys made for one process and stored nowhere: for tests and benches.
    pub fn from_keys(keys: Vec<HostKey>) -> Self {
        Self { keys, directory: PathBuf::new() }
    }

    /// The keys, Ed25519 first.
    pub fn keys(&self) -> &[HostKey] {
        &self.keys
    }

    /// The private keys that a profile offers.
    pub(crate) fn for_profile(&self, profile: AlgorithmProfile) -> Result<Vec<PrivateKey>, HostKeyError> {
        let usable: Vec<PrivateKey> = self
            .keys
            .iter()
            .filter(|key| profile.serves_host_key(&key.key.algorithm()))
            .map(|key| key.key.clone())
            .collect();
        if usable.is_empty() {
            return Err(HostKeyError::NoneUsable { path: self.directory.clone() });
        }
        Ok(usable)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn ssh_keygen(arguments: &[&str]) -> String {
        let output = Command::new("ssh-keygen").args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn first_start_makes_both_kinds_and_ssh_keygen_agrees_on_the_fingerprints() {
        let directory = tempfile::tempdir().unwrap();
        let keys_dir = directory.path().join("hostkeys");
        let (made, new) = HostKeys::load_or_generate(&keys_dir).unwrap();
        assert!(new);
        assert_eq!(
            made.keys().iter().map(HostKey::algorithm).collect::<Vec<_>>(),
            ["ssh-ed25519", "ssh-rsa"]
        );
        for (key, bits) in made.keys().iter().zip(["256", "4096"]) {
            let path = keys_dir.join(key.file_name);
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            let path = path.to_str().unwrap();
            let sha256 = ssh_keygen(&["-l", "-f", path]);
            assert!(sha256.starts_with(&format!("{bits} {} ", key.fingerprint_sha256())), "{sha256}");
            let md5 = ssh_keygen(&["-l", "-E", "md5", "-f", path]);
            assert!(md5.contains(&key.fingerprint_md5()), "{md5} against {}", key.fingerprint_md5());
            let public = ssh_keygen(&["-y", "-f", path]);
            assert!(public.starts_with(&key.public_line()), "{public}");
        }
        let (again, new) = HostKeys::load_or_generate(&keys_dir).unwrap();
        assert!(!new);
        assert_eq!(format!("{again:?}"), format!("{made:?}"));
        assert!(!format!("{made:?}").contains("BEGIN"));
    }

    #[test]
    fn imports_what_ssh_keygen_writes_in_every_form() {
        let directory = tempfile::tempdir().unwrap();
        for (kind, form) in [
            ("rsa", "PEM"),
            ("rsa", "PKCS8"),
            ("rsa", "RFC4716"),
            ("ed25519", "RFC4716"),
            ("ecdsa", "RFC4716"),
        ] {
            let path = directory.path().join(format!("{kind}-{form}"));
            let text_path = path.to_str().unwrap();
            let mut arguments = vec!["-q", "-t", kind, "-m", form, "-N", "", "-f", text_path];
            if kind == "rsa" {
                arguments.extend(["-b", "3072"]);
            }
            ssh_keygen(&arguments);
            let text = std::fs::read_to_string(&path).unwrap();
            let key = HostKey::parse(&text, &path).unwrap();
            assert!(
                ssh_keygen(&["-l", "-f", text_path]).contains(&key.fingerprint_sha256()),
                "{kind} {form}"
            );
        }
    }

    #[test]
    fn refuses_weak_encrypted_exposed_and_damaged_keys_with_a_remedy() {
        let directory = tempfile::tempdir().unwrap();
        let weak = directory.path().join("weak");
        ssh_keygen(&["-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", weak.to_str().unwrap()]);
        let text = std::fs::read_to_string(&weak).unwrap();
        let error = HostKey::parse(&text, &weak).unwrap_err().to_string();
        assert!(error.contains("RSA of 2048 bits"), "{error}");

        let locked = directory.path().join("locked");
        ssh_keygen(&["-q", "-t", "ed25519", "-N", "secret", "-f", locked.to_str().unwrap()]);
        let text = std::fs::read_to_string(&locked).unwrap();
        let error = HostKey::parse(&text, &locked).unwrap_err().to_string();
        assert!(error.contains("ssh-keygen -p"), "{error}");

        let key = HostKey::generate(HostKeyKind::Ed25519).unwrap();
        let path = key.store(directory.path(), false).unwrap();
        assert!(matches!(key.store(directory.path(), false), Err(HostKeyError::Exists { .. })));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(HostKeys::load(directory.path()), Err(HostKeyError::Exposed { mode: 0o644, .. })));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "not a key").unwrap();
        assert!(matches!(HostKeys::load(directory.path()), Err(HostKeyError::Malformed { .. })));
    }

    #[tokio::test]
    async fn references_lead_to_keys_and_one_of_each_kind_is_asked_for() {
        let data = tempfile::tempdir().unwrap();
        let made = HostKey::generate(HostKeyKind::Ed25519).unwrap();
        made.store(data.path(), false).unwrap();
        std::fs::write(data.path().join("other"), "not a key").unwrap();
        let secrets = dropgate_backends::Backends::secrets(&Default::default(), data.path()).await.unwrap();
        let resolve = async |references: &[&str]| {
            let references: Vec<String> = references.iter().map(|name| format!("file:{name}")).collect();
            HostKeys::resolve(&references, secrets.as_ref()).await.map_err(|e| e.to_string())
        };
        let found = resolve(&["ssh_host_ed25519_key"]).await.unwrap();
        assert_eq!(found.keys()[0].fingerprint_sha256(), made.fingerprint_sha256());
        for (references, expected) in [
            (&["missing"][..], "the secret file:missing does not exist"),
            (&["other"], "host key file:other: not a private key"),
            (&["ssh_host_ed25519_key"; 2], "of the same kind as file:ssh_host_ed25519_key"),
        ] {
            let error = resolve(references).await.unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        let none = resolve(&[]).await.unwrap().for_profile(AlgorithmProfile::default()).unwrap_err();
        assert!(none.to_string().contains("name one in host_keys"), "{none}");
    }

    #[test]
    fn known_hosts_line_has_the_port_form() {
        let key = HostKey::generate(HostKeyKind::Ed25519).unwrap();
        assert!(
            key.known_hosts_line("sftp.example.com", 22).starts_with("sftp.example.com ssh-ed25519 AAAA")
        );
        assert!(key.known_hosts_line("127.0.0.1", 2222).starts_with("[127.0.0.1]:2222 ssh-ed25519 AAAA"));
    }
}
