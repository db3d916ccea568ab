//! The SSH connection below an SFTP channel: russh's client, with the socket behind a valve.

use super::{Raw, Reply, valve, valve::Valve};
use crate::harness::until::within;
use anyhow::{Context as _, Result, bail, ensure};
use russh::{
    ChannelMsg, Limits, Preferred, cipher,
    client::{self, AuthResult, Msg},
    keys::{HashAlg, PrivateKeyWithHashAlg, PublicKeyBase64 as _, load_secret_key},
};
use std::{borrow::Cow, collections::VecDeque, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    net::TcpStream,
    sync::{mpsc, watch},
};

/// How long any single answer may take. Longer than every deadline of the product (RENAME waits up to 60 s).
pub const PATIENCE: Duration = Duration::from_secs(75);

/// Who logs in, with what.
#[derive(Clone, Debug)]
pub struct Login {
    /// Account name.
    pub user: String,
    /// Password or private key.
    pub with: Credential,
}

/// What is shown at login.
#[derive(Clone, Debug)]
pub enum Credential {
    /// A password.
    Password(String),
    /// The file of an unencrypted OpenSSH private key.
    Key(PathBuf),
}

/// How the SSH connection is made.
#[derive(Clone, Debug)]
pub struct Transport {
    /// Bytes sent or received before the client asks for new keys.
    pub rekey_after: usize,
    /// Ciphers, best first.
    pub ciphers: &'static [cipher::Name],
}

impl Default for Transport {
    fn default() -> Self {
        Self { rekey_after: 1 << 30, ciphers: &[cipher::AES_128_GCM, cipher::CHACHA20_POLY1305] }
    }
}

/// One SSH connection, logged in. Dropping it drops the socket.
pub struct Connection {
    session: client::Handle<Trusting>,
    /// Stops reading, half-closes or cuts the socket below.
    pub valve: Valve,
}

struct Trusting;

impl client::Handler for Trusting {
    type Error = russh::Error;
    async fn check_server_key(
        &mut self,
        _: &russh::keys::PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

impl Connection {
    /// Connects and logs in.
    ///
    /// # Errors
    /// If the connection fails or the login is refused.
    pub async fn open(server: SocketAddr, login: &Login, transport: &Transport) -> Result<Self> {
        let mut connection = Self::greet(server, transport).await?;
        let result = connection.authenticate(login).await?;
        ensure!(result.success(), "login of {} was refused: {result:?}", login.user);
        Ok(connection)
    }

    /// Connects without logging in.
    ///
    /// # Errors
    /// If the connection or the key exchange fails.
    pub async fn greet(server: SocketAddr, transport: &Transport) -> Result<Self> {
        let stream = TcpStream::connect(server).await.with_context(|| format!("connecting to {server}"))?;
        stream.set_nodelay(true)?;
        let valve = Valve::default();
        let config = client::Config {
            limits: Limits::new(transport.rekey_after, transport.rekey_after, Duration::from_secs(3600)),
            preferred: Preferred { cipher: Cow::Borrowed(transport.ciphers), ..Preferred::default() },
            channel_buffer_size: 1000,
            ..client::Config::default()
        };
        let stream = valve::Valved::new(stream, valve.clone());
        let session =
            within(PATIENCE, "key exchange", client::connect_stream(Arc::new(config), stream, Trusting))
                .await??;
        Ok(Self { session, valve })
    }

    /// One attempt to log in.
    ///
    /// # Errors
    /// If the connection fails meanwhile; a refusal is no error.
    pub async fn authenticate(&mut self, login: &Login) -> Result<AuthResult> {
        let attempt = async {
            Ok::<_, anyhow::Error>(match &login.with {
                Credential::Password(password) => {
                    self.session.authenticate_password(&login.user, password).await?
                }
                Credential::Key(file) => {
                    let key =
                        load_secret_key(file, None).with_context(|| format!("reading {}", file.display()))?;
                    let key = PrivateKeyWithHashAlg::new(Arc::new(key), Some(HashAlg::Sha512));
                    ensure!(!key.public_key_bytes().is_empty(), "an empty key");
                    self.session.authenticate_publickey(&login.user, key).await?
                }
            })
        };
        within(PATIENCE, "login", attempt).await?
    }

    /// Asks for another session channel without a subsystem.
    ///
    /// # Errors
    /// If the server refuses it.
    pub async fn channel(&self) -> Result<russh::Channel<Msg>> {
        Ok(within(PATIENCE, "channel open", self.session.channel_open_session()).await??)
    }

    /// Opens a channel with the `sftp` subsystem; INIT is not sent yet.
    ///
    /// # Errors
    /// If the server refuses the channel or the subsystem.
    pub async fn sftp(&self) -> Result<Raw> {
        let channel = self.channel().await?;
        channel.request_subsystem(true, "sftp").await?;
        let (mut read, write) = channel.split();
        loop {
            match within(PATIENCE, "subsystem reply", read.wait()).await? {
                Some(ChannelMsg::Success) => break,
                Some(ChannelMsg::Failure) | None => bail!("the sftp subsystem was refused"),
                Some(_) => {}
            }
        }
        let (sender, replies) = mpsc::channel(1 << 16);
        let (alive, ended) = watch::channel(());
        tokio::spawn(async move {
            // Dropped when the channel is over, however that came.
            let _alive = alive;
            let mut buffer = Vec::new();
            while let Some(message) = read.wait().await {
                match message {
                    ChannelMsg::Data { data } => buffer.extend_from_slice(&data),
                    ChannelMsg::Close => break,
                    _ => continue,
                }
                let mut from = 0;
                while let Some(reply) = cut_frame(&buffer, &mut from) {
                    if sender.send(reply).await.is_err() {
                        return;
                    }
                }
                buffer.drain(..from);
            }
        });
        Ok(Raw { write, replies, ended, stash: VecDeque::new(), next_id: 1 })
    }

    /// Whether the connection is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.session.is_closed()
    }

    /// Asks the session task for new keys now.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn rekey(&self) -> Result<()> {
        Ok(self.session.rekey_soon().await?)
    }
}

fn cut_frame(buffer: &[u8], from: &mut usize) -> Option<Result<Reply>> {
    let rest = buffer.get(*from..)?;
    let length = u32::from_be_bytes(*rest.first_chunk::<4>()?) as usize;
    let body = rest.get(4..4 + length)?;
    *from += 4 + length;
    Some(Reply::decode(body))
}
