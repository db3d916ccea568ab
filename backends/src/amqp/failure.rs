//! What a broker's refusals and a broken way to it mean, and what to do about them.

use crate::{events::EventError, open::OpenError, queue::QueueError};
use lapin::{Error, ErrorKind};
use std::{error::Error as _, fmt, io};

/// Why something could not be done, as what it takes to get over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The broker can't be reached, did not answer, or went away: it may come back.
    Away,
    /// It takes no more now.
    Full,
    /// An exchange or queue is not there.
    Missing,
    /// It does not know the user, or not with that password.
    Login,
    /// There is no such virtual host, or not for this user.
    VirtualHost,
    /// This user may not do that.
    Denied,
    /// Something else has the name of ours.
    Foreign,
    /// Its certificate is not trusted.
    Certificate,
    /// The settings make no sense, or what answers is no broker of this kind.
    Settings,
}

/// See [`Kind`].
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    /// What the broker or the system said.
    pub(crate) said: String,
}

impl Failure {
    pub(crate) fn new(kind: Kind, said: impl Into<String>) -> Self {
        Self { kind, said: said.into() }
    }

    /// Whether nothing gets better until somebody changes something.
    pub(crate) const fn is_refusal(&self) -> bool {
        match self.kind {
            Kind::Away | Kind::Full | Kind::Missing => false,
            Kind::Login
            | Kind::VirtualHost
            | Kind::Denied
            | Kind::Foreign
            | Kind::Certificate
            | Kind::Settings => true,
        }
    }

    /// Whether the way to the broker is worth making anew at once: what was declared may be gone.
    pub(crate) const fn may_pass_at_once(&self) -> bool {
        matches!(self.kind, Kind::Away | Kind::Missing)
    }

    pub(crate) const fn remedy(&self) -> &'static str {
        match self.kind {
            Kind::Away => "check that the broker runs and that this host can reach it",
            Kind::Full => {
                "see the broker's alarms and the length of the queue; it goes on by itself when there is room"
            }
            Kind::Missing => {
                "it is made by the first worker that starts, or by whoever may configure it: start one, or give this user the right"
            }
            Kind::Login => {
                "set `user` and `password` (or the secret behind `uri`) to a user that the broker knows: `rabbitmqctl authenticate_user` tells"
            }
            Kind::VirtualHost => {
                "make the virtual host and give the user rights there (`rabbitmqctl add_vhost`, `set_permissions`), or name another in `uri`; `/%2f` at its end means the host `/`"
            }
            Kind::Denied => "give the user that right on that name: `rabbitmqctl set_permissions`",
            Kind::Foreign => {
                "move away what has the name there (a queue of another type or with other arguments), or set `prefix`"
            }
            Kind::Certificate => {
                "give the broker a certificate for that name from an authority this host trusts, or name the authority's in `ca_file`"
            }
            Kind::Settings => "correct the section",
        }
    }

    /// For the start of a process.
    pub(crate) fn at_open(self, key: &'static str, address: String) -> OpenError {
        let remedy = self.remedy().to_owned();
        OpenError::Remote { key, address, what: self.said, remedy }
    }

    /// What ended the making of a connection.
    pub(super) fn connecting(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::ProtocolError(e) => match e.get_id() {
                403 => Self::new(Kind::Login, e.get_message().to_string()),
                530 => Self::new(Kind::VirtualHost, e.get_message().to_string()),
                _ => Self::from(error),
            },
            _ => Self::from(error),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Away => f.write_str(&self.said),
            _ => write!(f, "{}; {}", self.said, self.remedy()),
        }
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let said = error.to_string();
        match error.kind() {
            ErrorKind::ProtocolError(e) => {
                let said = e.get_message().to_string();
                match e.get_id() {
                    403 => Self::new(Kind::Denied, said),
                    404 => Self::new(Kind::Missing, said),
                    405 | 406 => Self::new(Kind::Foreign, said),
                    530 => Self::new(Kind::VirtualHost, said),
                    540 => Self::new(Kind::Settings, said),
                    _ => Self::new(Kind::Away, said),
                }
            }
            ErrorKind::IOError(e) if is_certificate(e) => Self::new(Kind::Certificate, io_chain(e)),
            ErrorKind::IOError(e) => Self::new(Kind::Away, io_chain(e)),
            ErrorKind::InvalidProtocolVersion(_) | ErrorKind::ParsingError(_) => {
                Self::new(Kind::Settings, format!("what answers there does not speak AMQP 0-9-1: {said}"))
            }
            _ => Self::new(Kind::Away, said),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

fn io_chain(error: &io::Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let more = next.to_string();
        if !said.contains(&more) {
            said = format!("{said}: {more}");
        }
        cause = next.source();
    }
    said
}

/// rustls wraps what it has against a peer into this kind.
fn is_certificate(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData && error.to_string().contains("certificate")
}

impl From<Failure> for QueueError {
    fn from(failure: Failure) -> Self {
        let said = failure.to_string();
        match failure.kind {
            Kind::Full => Self::Full(said),
            Kind::Away | Kind::Missing => Self::Unavailable(said),
            _ => Self::Rejected(said),
        }
    }
}

impl From<Failure> for EventError {
    fn from(failure: Failure) -> Self {
        let said = failure.to_string();
        if failure.is_refusal() { Self::Rejected(said) } else { Self::Unavailable(said) }
    }
}
