//! What russh asks about one connection: may this login, may this channel, here are bytes.
//!
//! Everything here runs on the session's only task, so nothing here waits for the client.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dropgate_schemas::time::Timestamp;
use russh::keys::ssh_key::HashAlg;
use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelOpenFailure, MethodKind, MethodSet, Pty};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::attempts::{AttemptLimits, Attempts};
use super::auth::{Authenticator, Login, Refusal, Verdict};
use super::channel::{SftpChannel, TaskHome};
use super::control::{CloseReason, Lifecycle, SessionControl};
use super::observer::{ConnectionInfo, LoginMethod, SessionFact, SessionObserver};
use super::watch::AccountWatch;
use super::{EndReason, EngineContext, EngineFactory, Outbox, SessionInfo};

/// Time that a refused key offer takes at least, so that it says little about how far the lookup got.
const OFFER_FLOOR: Duration = Duration::from_millis(20);
const USER_NAME_MAX: usize = 255;

/// What all connections of a listener share.
pub(crate) struct Shared {
    pub(crate) authenticator: Authenticator,
    pub(crate) engines: Arc<dyn EngineFactory>,
    pub(crate) observer: Arc<dyn SessionObserver>,
    pub(crate) watch: AccountWatch,
    pub(crate) home: TaskHome,
    pub(crate) attempts: AttemptLimits,
    pub(crate) failure_delay: Duration,
    pub(crate) channels: usize,
    pub(crate) outbox_bytes: usize,
    /// An engine is to have given up by itself before; see [`super::ChannelEngine::feed`].
    pub(crate) storage_stall: Duration,
}

/// Why russh's session task stops.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandlerError {
    #[error(transparent)]
    Ssh(#[from] russh::Error),
    /// The session was killed; the reason is in its control.
    #[error("the session was ended")]
    Ended,
}

enum Slot {
    /// Open, no subsystem yet.
    Idle(OwnedSemaphorePermit),
    Sftp(Box<SftpChannel>, OwnedSemaphorePermit),
}

/// The handler of one connection.
pub(crate) struct ClientHandler {
    shared: Arc<Shared>,
    control: Arc<SessionControl>,
    user: Option<String>,
    attempts: Attempts,
    login: Option<Box<Login>>,
    /// How the client signed.
    signature: Option<String>,
    session: Option<(Arc<SessionInfo>, dropgate_schemas::account::Account)>,
    channels: HashMap<ChannelId, Slot>,
    places: Arc<Semaphore>,
}

fn methods() -> MethodSet {
    MethodSet::from([MethodKind::PublicKey, MethodKind::Password].as_slice())
}

/// Always with the methods: without them russh takes the failed method off the list.
fn reject() -> Auth {
    Auth::Reject { proceed_with_methods: Some(methods()), partial_success: false }
}

/// Waits until `started` is `span` ago, or the session is killed.
async fn wait_until(control: &SessionControl, started: Instant, span: Duration) {
    let deadline = tokio::time::Instant::from_std(started + span);
    let killed = control.kill_token();
    tokio::select! {
        () = tokio::time::sleep_until(deadline) => {}
        () = killed.cancelled() => {}
    }
}

impl ClientHandler {
    pub(crate) fn new(shared: Arc<Shared>, control: Arc<SessionControl>) -> Self {
        Self {
            attempts: Attempts::new(shared.attempts),
            places: Arc::new(Semaphore::new(shared.channels)),
            shared,
            control,
            user: None,
            login: None,
            signature: None,
            session: None,
            channels: HashMap::new(),
        }
    }

    fn connection(&self) -> ConnectionInfo {
        ConnectionInfo {
            id: self.control.id,
            peer: self.control.peer,
            client_software: self.control.client_software().to_owned(),
            algorithms: self.control.algorithms().cloned(),
        }
    }

    /// A login request for `user` begins: nothing that was proven for another name counts. False when this connection
    /// has no tries left.
    fn begin(&mut self, user: &str) -> bool {
        self.login = None;
        if self.user.as_deref() != Some(user) {
            self.user = Some(user.chars().take(USER_NAME_MAX).collect());
        }
        !self.control.closing().is_cancelled() && !self.attempts.exhausted()
    }

    /// Accepts a good login if the limits allow the session.
    fn admit(
        &mut self,
        user: &str,
        login: Box<Login>,
        method: LoginMethod,
        signature: Option<String>,
    ) -> Auth {
        if !self.shared.observer.takes_logins() {
            tracing::warn!(session = %self.control.id, "login put off: the audit trail takes nothing at the moment");
            self.control.close(CloseReason::LoginUnavailable);
            return reject();
        }
        match self.control.promote(&login.account.name) {
            Ok(()) => {
                (self.login, self.signature) = (Some(login), signature);
                Auth::Accept
            }
            Err(limit) => {
                self.refused(user, method, Refusal::Limit(limit));
                self.control.close(CloseReason::Limit(limit));
                reject()
            }
        }
    }

    fn refused(&self, user: &str, method: LoginMethod, refusal: Refusal) {
        let user = user.chars().take(USER_NAME_MAX).collect();
        let fact = SessionFact::LoginRefused { connection: self.connection(), user, method, refusal };
        self.shared.observer.record(fact);
    }

    /// Closes the connection if this was the last try. The DISCONNECT follows the failure that russh sends first.
    fn close_if_exhausted(&self) {
        if self.attempts.exhausted() {
            self.control.close(CloseReason::TooManyTries);
        }
    }

    fn start_sftp(&mut self, id: ChannelId, session: &mut Session) -> Result<(), HandlerError> {
        let Some((info, account)) = &self.session else { return Ok(session.channel_failure(id)?) };
        let Some(slot) = self.channels.remove(&id) else { return Ok(session.channel_failure(id)?) };
        let permit = match slot {
            Slot::Idle(permit) => permit,
            // Exactly one subsystem a channel.
            Slot::Sftp(channel, permit) => {
                self.channels.insert(id, Slot::Sftp(channel, permit));
                return Ok(session.channel_failure(id)?);
            }
        };
        let outbox = Outbox::new(self.shared.outbox_bytes, Arc::clone(&self.control));
        let engine = self.shared.engines.open(EngineContext {
            session: Arc::clone(info),
            account: account.clone(),
            outbox: outbox.clone(),
            lifecycle: Lifecycle(Arc::clone(&self.control)),
        });
        // Into russh's buffer before anything of the engine can get there.
        session.channel_success(id)?;
        self.control.touch();
        let channel = SftpChannel::start(
            id,
            engine,
            outbox,
            session.handle(),
            Arc::clone(&self.control),
            &self.shared.home,
        );
        self.channels.insert(id, Slot::Sftp(Box::new(channel), permit));
        Ok(())
    }

    fn finish(&mut self, id: ChannelId, why: EndReason) {
        match self.channels.remove(&id) {
            Some(Slot::Sftp(channel, permit)) => channel.finish(why, permit, &self.shared.home),
            Some(Slot::Idle(_)) | None => {}
        }
    }
}

impl Drop for ClientHandler {
    fn drop(&mut self) {
        let why = match self.control.reason() {
            None | Some(CloseReason::ClosedByClient | CloseReason::Lost(_)) => EndReason::ConnectionLost,
            Some(_) => EndReason::SessionEnded,
        };
        for (_, slot) in self.channels.drain() {
            match slot {
                Slot::Sftp(channel, permit) => channel.finish(why, permit, &self.shared.home),
                Slot::Idle(_) => {}
            }
        }
        if let Some((_, account)) = &self.session {
            self.shared.watch.remove(&account.name, self.control.id);
        }
    }
}

impl Handler for ClientHandler {
    type Error = HandlerError;

    async fn auth_none(&mut self, user: &str) -> Result<Auth, Self::Error> {
        // Clients ask this way for the methods: free, and answered at once.
        self.begin(user);
        Ok(reject())
    }

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Self::Error> {
        let started = Instant::now();
        if !self.begin(user) {
            return Ok(reject());
        }
        match self.shared.authenticator.password(user, password).await {
            Verdict::Good(login) => Ok(self.admit(user, login, LoginMethod::Password, None)),
            Verdict::Refused(refusal) => {
                self.attempts.password_failed();
                self.refused(user, LoginMethod::Password, refusal);
                wait_until(&self.control, started, self.shared.failure_delay).await;
                self.close_if_exhausted();
                Ok(reject())
            }
            Verdict::Unavailable => {
                self.control.close(CloseReason::LoginUnavailable);
                Ok(reject())
            }
        }
    }

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        let started = Instant::now();
        if !self.begin(user) {
            return Ok(reject());
        }
        self.attempts.key_offered();
        if self.attempts.exhausted() {
            self.close_if_exhausted();
            return Ok(reject());
        }
        // The answer carries no state: who the client is, is decided by the verified signature alone.
        let peer = self.control.peer.ip();
        match self.shared.authenticator.key(user, offer.public_key, offer.algorithm, peer).await {
            Verdict::Good(_) => Ok(Auth::Accept),
            Verdict::Refused(refusal) => {
                tracing::debug!(session = %self.control.id, %refusal, "key offer refused");
                self.control.count_refused_key();
                wait_until(&self.control, started, OFFER_FLOOR).await;
                Ok(reject())
            }
            Verdict::Unavailable => {
                self.control.close(CloseReason::LoginUnavailable);
                Ok(reject())
            }
        }
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        let started = Instant::now();
        if !self.begin(user) {
            return Ok(reject());
        }
        let peer = self.control.peer.ip();
        let method = LoginMethod::PublicKey(key.public_key.fingerprint(HashAlg::Sha256).to_string());
        match self.shared.authenticator.key(user, key.public_key, key.algorithm, peer).await {
            Verdict::Good(login) => Ok(self.admit(user, login, method, Some(key.algorithm.to_string()))),
            Verdict::Refused(refusal) => {
                self.attempts.signature_failed();
                self.refused(user, method, refusal);
                wait_until(&self.control, started, self.shared.failure_delay).await;
                self.close_if_exhausted();
                Ok(reject())
            }
            Verdict::Unavailable => {
                self.control.close(CloseReason::LoginUnavailable);
                Ok(reject())
            }
        }
    }

    async fn auth_openssh_certificate(
        &mut self,
        user: &str,
        certificate: &russh::keys::Certificate,
    ) -> Result<Auth, Self::Error> {
        // Not offered: russh checks expiry and signature only; authority, principals and options would be ours.
        self.begin(user);
        tracing::debug!(session = %self.control.id, key_id = %certificate.key_id().escape_debug(), "certificate refused");
        self.attempts.signature_failed();
        self.close_if_exhausted();
        Ok(reject())
    }

    async fn auth_succeeded(&mut self, _session: &mut Session) -> Result<(), Self::Error> {
        let Some(login) = self.login.take() else {
            // russh says yes only after we did; if that ever changes, nobody gets in.
            self.control.close(CloseReason::ProtocolError("login without an identity".to_owned()));
            return Err(HandlerError::Ended);
        };
        let Login { account, credential } = *login;
        let info = Arc::new(SessionInfo {
            id: self.control.id,
            peer: self.control.peer,
            client_software: self.control.client_software().to_owned(),
            algorithms: self.control.algorithms().cloned(),
            credential,
            signature: self.signature.take(),
            logged_in_at: Timestamp::now(),
        });
        self.control.set_authenticated(account.name.clone());
        self.shared.watch.add(&account, &self.control);
        let fact =
            SessionFact::LoginAccepted { session: Arc::clone(&info), account: Box::new(account.clone()) };
        self.shared.observer.record(fact);
        self.session = Some((info, account));
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        if self.control.draining().is_cancelled() {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => {
                self.channels.insert(channel.id(), Slot::Idle(place));
                // Dropping `channel` closes russh's own queue of its data, which nobody would read.
                reply.accept().await;
            }
            Err(_) => reply.reject(ChannelOpenFailure::ResourceShortage).await,
        }
        Ok(())
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        match name {
            "sftp" => self.start_sftp(id, session),
            _ => Ok(session.channel_failure(id)?),
        }
    }

    async fn data(&mut self, id: ChannelId, data: &[u8], _session: &mut Session) -> Result<(), Self::Error> {
        let Some(Slot::Sftp(channel, _)) = self.channels.get_mut(&id) else { return Ok(()) };
        if data.is_empty() || self.control.closing().is_cancelled() {
            return Ok(());
        }
        self.control.touch();
        let killed = self.control.kill_token();
        let fed = tokio::select! {
            biased;
            fed = tokio::time::timeout(self.shared.storage_stall, channel.engine().feed(data)) => fed,
            () = killed.cancelled() => return Err(HandlerError::Ended),
        };
        match fed {
            Ok(Ok(())) => Ok(()),
            Ok(Err(super::EngineClosed)) => {
                self.finish(id, EndReason::EngineClosed);
                Ok(())
            }
            Err(_) => {
                self.control.close(CloseReason::StorageStalled);
                Err(HandlerError::Ended)
            }
        }
    }

    async fn channel_eof(&mut self, id: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        match self.channels.get(&id) {
            Some(Slot::Sftp(..)) => self.finish(id, EndReason::Eof),
            Some(Slot::Idle(_)) => {
                self.channels.remove(&id);
                session.close(id)?;
            }
            None => {}
        }
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _session: &mut Session) -> Result<(), Self::Error> {
        self.finish(id, EndReason::ChannelClosed);
        Ok(())
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        _command: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(session.channel_failure(id)?)
    }

    async fn shell_request(&mut self, id: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        Ok(session.channel_failure(id)?)
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        _term: &str,
        _columns: u32,
        _rows: u32,
        _width: u32,
        _height: u32,
        _modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(session.channel_failure(id)?)
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        _name: &str,
        _value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(session.channel_failure(id)?)
    }

    async fn x11_request(
        &mut self,
        id: ChannelId,
        _single: bool,
        _protocol: &str,
        _cookie: &str,
        _screen: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(session.channel_failure(id)?)
    }

    async fn window_change_request(
        &mut self,
        id: ChannelId,
        _columns: u32,
        _rows: u32,
        _width: u32,
        _height: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        Ok(session.channel_failure(id)?)
    }

    // Agent forwarding, signals, TCP and socket forwarding in both directions: russh's defaults refuse them.
}
