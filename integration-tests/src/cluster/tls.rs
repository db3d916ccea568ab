//! TLS in front of every server of a cluster: relays that end it, with certificates of an authority of the test's own.

use super::variable;
use crate::harness::{Medium, Scratch};
use anyhow::{Context as _, Result};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::aws_lc_rs::default_provider,
        pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};

/// The variable that the members of the cluster have their SAS in.
const SAS: &str = "DROPGATE_TLS_SAS";

/// The relays.
pub struct Tls {
    scratch: Scratch,
    relays: Vec<Relay>,
}

/// One, in front of one server.
struct Relay {
    name: &'static str,
    server: String,
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    task: AbortHandle,
}

impl Tls {
    /// In front of all servers that the environment names.
    ///
    /// # Errors
    /// If one is not named, or nothing can be bound.
    pub async fn start() -> Result<Self> {
        let scratch = Scratch::new(Medium::Memory)?;
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
        std::fs::write(scratch.join("ca.pem"), authority.pem())?;
        // Nobody is vouched for by this one.
        let stranger = CertificateParams::new(Vec::new())?.self_signed(&KeyPair::generate()?)?;
        std::fs::write(scratch.join("other.pem"), stranger.pem())?;

        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()])?
            .signed_by(&key, &authority)?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from(certificate)],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));

        let mut relays = Vec::new();
        for (name, variable) in [
            ("RabbitMQ", "DROPGATE_TEST_AMQP_URI"),
            ("MongoDB", "DROPGATE_TEST_MONGODB_URI"),
            ("Vault", "DROPGATE_TEST_VAULT_ADDR"),
            ("Azure Blob", "DROPGATE_TEST_AZURE_ENDPOINT"),
            ("S3", "DROPGATE_TEST_S3_ENDPOINT"),
        ] {
            relays.push(Relay::start(name, variable, acceptor.clone()).await?);
        }
        Ok(Self { scratch, relays })
    }

    /// The config with TLS on the way to every server.
    #[must_use]
    pub fn applied(&self, config: &str) -> String {
        let ca = self.authority().display().to_string();
        let mut config = config
            .replace("kind = \"amqp\"\n", &format!("kind = \"amqp\"\nca_file = \"{ca}\"\n"))
            .replace("[backends.secrets]\n", &format!("[backends.secrets]\nca_file = \"{ca}\"\n"))
            .replace("uri = \"amqp://", "uri = \"amqps://")
            .replace(
                "account_key = \"env:DROPGATE_TEST_AZURE_KEY\"\nallow_account_key = true\n",
                &format!("sas = \"env:{SAS}\"\n"),
            );
        if let Ok(uri) = variable("DROPGATE_TEST_MONGODB_URI") {
            let (and, uri) = (if uri.contains('?') { "&" } else { "/?" }, uri.trim_end_matches('/'));
            let uri = format!("{uri}{and}tls=true&tlsCAFile={}", ca.replace('/', "%2F"));
            config = config.replace("env:DROPGATE_TEST_MONGODB_URI", &uri);
        }
        for relay in &self.relays {
            config = config
                .replace(&format!("http://{}", relay.server), &format!("https://{}", relay.address))
                .replace(&relay.server, &relay.address.to_string());
        }
        config
    }

    /// A config of [`Self::applied`] without TLS on the way to one server.
    #[must_use]
    pub fn undone(&self, name: &str, config: &str) -> String {
        let mut config = config.to_owned();
        for relay in self.relays.iter().filter(|relay| relay.name == name) {
            let address = relay.address.to_string();
            config = config
                .replace(&format!("https://{address}"), &format!("http://{}", relay.server))
                .replace(&format!("amqps://{address}"), &format!("amqp://{}", relay.server))
                .replace(&address, &relay.server);
        }
        if name == "MongoDB" { config.replace("tls=true&tlsCAFile=", "appName=") } else { config }
    }

    /// Where a server is reached over TLS.
    ///
    /// # Errors
    /// If there is no such server.
    pub fn address(&self, name: &str) -> Result<String> {
        let relay = self.relays.iter().find(|relay| relay.name == name).context("no such server")?;
        Ok(relay.address.to_string())
    }

    /// What the members need in their environment: the authority for clients that take those of the system, and a SAS.
    #[must_use]
    pub fn env(&self, sas: String) -> Vec<(String, String)> {
        let authority = self.authority().display().to_string();
        vec![("SSL_CERT_FILE".to_owned(), authority), (SAS.to_owned(), sas)]
    }

    /// The authority's certificate.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.scratch.join("ca.pem")
    }

    /// The certificate of an authority that has nothing to do with these servers.
    #[must_use]
    pub fn another_authority(&self) -> PathBuf {
        self.scratch.join("other.pem")
    }

    /// Connections that came over TLS, by server.
    #[must_use]
    pub fn connections(&self) -> Vec<(&'static str, usize)> {
        self.relays.iter().map(|relay| (relay.name, relay.connections.load(Ordering::SeqCst))).collect()
    }
}

impl Relay {
    async fn start(name: &'static str, named: &str, acceptor: TlsAcceptor) -> Result<Self> {
        let uri = variable(named)?;
        let rest = uri.split_once("://").context("no address")?.1;
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        let server = authority.rsplit('@').next().unwrap_or_default().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let connections = Arc::new(AtomicUsize::new(0));
        let (upstream, counted) = (server.clone(), Arc::clone(&connections));
        let task = tokio::spawn(async move {
            let mut passing = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                while passing.try_join_next().is_some() {}
                passing.spawn(pass(client, acceptor.clone(), upstream.clone(), Arc::clone(&counted)));
            }
        });
        Ok(Self { name, server, address, connections, task: task.abort_handle() })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One connection. What goes wrong on it is for the client to tell.
async fn pass(client: TcpStream, acceptor: TlsAcceptor, upstream: String, connections: Arc<AtomicUsize>) {
    let _ = client.set_nodelay(true);
    let Ok(mut client) = acceptor.accept(client).await else { return };
    connections.fetch_add(1, Ordering::SeqCst);
    let Ok(mut server) = TcpStream::connect(&upstream).await else { return };
    let _ = server.set_nodelay(true);
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}
