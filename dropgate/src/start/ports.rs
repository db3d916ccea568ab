//! What to say when an address can't be listened on: which key names it, and who has it.

use crate::config::Loaded;
use std::{io, net::SocketAddr, path::Path};

/// One sentence for people.
pub(crate) fn explain(key: &str, address: SocketAddr, error: &io::Error, loaded: &Loaded) -> String {
    let origin = loaded.places.find(key);
    let variable =
        format!("DROPGATE__{}", key.to_ascii_uppercase().replace(['.', '['], "__").replace(']', ""));
    let remedy =
        format!("set {key} (or the variable {variable}, or the --…-listen option) to another address");
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            let who = owner(address.port()).unwrap_or_else(|| "another process".to_owned());
            format!(
                "{address} ({key}, {origin}) is in use by {who}: stop that, or {remedy}; port 0 takes a free one"
            )
        }
        io::ErrorKind::PermissionDenied => {
            format!(
                "{address} ({key}, {origin}) is not allowed for this user: {error}; {remedy}; ports from 1024 on are free for all"
            )
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("{address} ({key}, {origin}) is no address of this host: {error}; {remedy}")
        }
        _ => format!("{address} ({key}, {origin}) can't be listened on: {error}; {remedy}"),
    }
}

/// The process that listens on a TCP port, as far as this user may see it.
fn owner(port: u16) -> Option<String> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| std::fs::read_to_string(table).ok())
        .find_map(|table| listening_inode(&table, port))?;
    let socket = format!("socket:[{inode}]");
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().filter(|name| name.bytes().all(|b| b.is_ascii_digit())) else {
            continue;
        };
        let Ok(open) = std::fs::read_dir(process.path().join("fd")) else { continue };
        if open.flatten().any(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to == Path::new(&socket))) {
            let command = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("process {pid} ({})", crate::logging::escape(command.trim())));
        }
    }
    None
}

/// The inode of the listening socket of a port in a table of `/proc/net`.
fn listening_inode(table: &str, port: u16) -> Option<String> {
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let found = u16::from_str_radix(local.rsplit(':').next()?, 16).ok()?;
        (*state == "0A" && found == port).then(|| (*inode).to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let who = owner(listener.local_addr().unwrap().port()).unwrap();
        assert!(who.starts_with(&format!("process {} (", std::process::id())), "{who}");
    }
}
