//! One connection from accept to its end: starts russh on it, watches its timers, and ends it, politely and then surely.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dropgate_backends::observe::Gauge;
use russh::server::{Handle, RunningSession};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::ListenerConfig;
use super::limits::ConnectionPermit;
use super::stream::{BeforeLogin, ClientStream};
use crate::ssh::observer::{ConnectionInfo, SessionFact};
use crate::ssh::{ClientHandler, CloseReason, HandlerError, SessionControl, Shared};

/// How often the slow timers (idle, blocked writes, drain) are looked at, at most.
const TICK: Duration = Duration::from_secs(5);
/// How often a draining session is asked whether it is done.
const DRAIN_TICK: Duration = Duration::from_millis(50);
/// How long the message that ends a session may take into russh's queue.
const FAREWELL: Duration = Duration::from_secs(1);
/// Replies that are ready at a drain get this long to leave.
const LAST_REPLIES: Duration = Duration::from_secs(2);

/// An accepted connection.
pub(super) struct Connection {
    socket: TcpStream,
    control: Arc<SessionControl>,
    config: Arc<ListenerConfig>,
    russh: Arc<russh::server::Config>,
    shared: Arc<Shared>,
}

impl Connection {
    pub(super) fn new(
        socket: TcpStream,
        peer: SocketAddr,
        permit: ConnectionPermit,
        config: Arc<ListenerConfig>,
        russh: Arc<russh::server::Config>,
        shared: Arc<Shared>,
        draining: CancellationToken,
    ) -> Self {
        Self { socket, control: SessionControl::new(peer, permit, draining), config, russh, shared }
    }

    /// Serves the connection to its end.
    pub(super) async fn run(self) {
        let Self { socket, control, config, russh, shared } = self;
        let _open = Gauge::SessionsOpen.enter();
        shared.observer.record(SessionFact::Connected { id: control.id, peer: control.peer });
        // Without it, small replies wait for the client's delayed acknowledgements.
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(session = %control.id, %error, "TCP_NODELAY");
        }
        let before_login =
            BeforeLogin { bytes: config.before_login_bytes, packets: config.before_login_packets };
        let stream = ClientStream::new(socket, Arc::clone(&control), before_login);
        let handler = ClientHandler::new(Arc::clone(&shared), Arc::clone(&control));
        let identification = Duration::from_secs(config.identification_seconds);
        let starting = russh::server::run_stream(russh, stream, handler);
        let started = tokio::select! {
            started = timeout(identification, starting) => Some(started),
            () = control.draining().cancelled() => None,
        };
        match started {
            Some(Ok(Ok(running))) => {
                let result = supervise(running, &control, &config).await;
                control.note(ended_because(result, &control));
            }
            Some(Ok(Err(error))) => control.note(ended_because(Err(error), &control)),
            Some(Err(_)) => control.note(CloseReason::NoIdentification),
            None => control.note(CloseReason::ShuttingDown),
        }
        control.release_permit();
        let ended = SessionFact::Disconnected {
            connection: ConnectionInfo {
                id: control.id,
                peer: control.peer,
                client_software: control.client_software().to_owned(),
                algorithms: control.algorithms().cloned(),
            },
            account: control.account().cloned(),
            reason: control.reason().cloned().unwrap_or(CloseReason::ClosedByClient),
            lasted: control.opened.elapsed(),
            received: control.received(),
            sent: control.sent(),
            refused_keys: control.refused_keys(),
        };
        shared.observer.record(ended);
    }
}

/// Waits for the end of russh's session and brings it about where a rule says so.
async fn supervise(
    mut running: RunningSession<ClientHandler>,
    control: &Arc<SessionControl>,
    config: &ListenerConfig,
) -> Result<(), HandlerError> {
    let handle = running.handle();
    let opened = Instant::from_std(control.opened);
    let grace_over = opened + Duration::from_secs(config.login_grace_seconds);
    let mut drain_over: Option<Instant> = None;
    loop {
        let next_look = next_look(control, config, grace_over, drain_over.is_some());
        tokio::select! {
            result = &mut running => return result,
            () = control.closing().cancelled() => break,
            () = control.draining().cancelled(), if drain_over.is_none() => {
                drain_over = Some(Instant::now() + Duration::from_secs(config.drain_seconds));
            }
            () = sleep_until(next_look) => {}
        }
        look(control, config, grace_over, drain_over);
    }
    end(running, handle, control).await
}

fn next_look(
    control: &SessionControl,
    config: &ListenerConfig,
    grace_over: Instant,
    draining: bool,
) -> Instant {
    let now = Instant::now();
    if draining {
        return now + DRAIN_TICK;
    }
    let tick = now + TICK.min(Duration::from_secs(config.idle_seconds.max(1)));
    if control.is_authenticated() { tick } else { tick.min(grace_over.max(now)) }
}

/// Applies the timers.
fn look(control: &SessionControl, config: &ListenerConfig, grace_over: Instant, drain_over: Option<Instant>) {
    let now = Instant::now();
    if !control.is_authenticated() {
        if now >= grace_over {
            control.close(CloseReason::LoginGrace);
        } else if drain_over.is_some() {
            control.close(CloseReason::ShuttingDown);
        }
        return;
    }
    // Keepalives can't tell: a session that can't write is parked in russh, its keepalive timer with it.
    let silence = Duration::from_secs(config.keepalive_seconds.saturating_mul(config.keepalive_tries as u64));
    if !silence.is_zero() && control.write_blocked_for() > silence {
        control.close(CloseReason::NotReading);
    } else if config.idle_seconds > 0 && control.idle() >= Duration::from_secs(config.idle_seconds) {
        control.close(CloseReason::Idle);
    } else if let Some(over) = drain_over
        && (now >= over || !control.is_busy())
    {
        control.close(CloseReason::ShuttingDown);
    }
}

/// Says farewell, gives the client a moment to hang up, then kills.
async fn end(
    mut running: RunningSession<ClientHandler>,
    handle: Handle,
    control: &SessionControl,
) -> Result<(), HandlerError> {
    let reason = control.reason().cloned().unwrap_or(CloseReason::ClosedByClient);
    let last_words = async {
        if reason == CloseReason::ShuttingDown {
            // A CLOSE that was just accepted deserves its answer.
            let drained = async {
                while control.unsent() > 0 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            let _ = timeout(LAST_REPLIES, drained).await;
        }
        let farewell = handle.disconnect(reason.code(), reason.to_string(), String::new());
        let _ = timeout(FAREWELL.min(reason.grace()), farewell).await;
        tokio::time::sleep(reason.grace()).await;
    };
    tokio::select! {
        result = &mut running => return result,
        () = last_words => {}
    }
    control.kill();
    running.await
}

/// The reason that nobody noted: what russh's session returned.
fn ended_because(result: Result<(), HandlerError>, control: &SessionControl) -> CloseReason {
    use russh::Error as Ssh;
    let error = match result {
        Ok(()) => return CloseReason::ClosedByClient,
        Err(HandlerError::Ended) => return CloseReason::ClosedByClient,
        Err(HandlerError::Ssh(error)) => error,
    };
    match error {
        Ssh::Disconnect | Ssh::HUP if control.received() == 0 => CloseReason::Probe,
        Ssh::Disconnect | Ssh::HUP => CloseReason::ClosedByClient,
        Ssh::IO(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => CloseReason::ClosedByClient,
        Ssh::IO(error) => CloseReason::Lost(error.to_string()),
        Ssh::KeepaliveTimeout | Ssh::InactivityTimeout => CloseReason::Unresponsive,
        other => CloseReason::ProtocolError(other.to_string()),
    }
}
