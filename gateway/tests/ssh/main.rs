//! The SSH half of the gateway against real clients: a listener on port 0, the OpenSSH programs, russh's client and raw
//! sockets, with small engines in place of SFTP.

#[cfg(test)]
mod auth;
#[cfg(test)]
mod channels;
#[cfg(test)]
mod engines;
#[cfg(test)]
mod flow;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod openssh;
#[cfg(test)]
mod raw;
#[cfg(test)]
mod server;
#[cfg(test)]
mod states;
#[cfg(test)]
mod stores;
