//! The adapter against a real OpenSSH server, and against a server of ours with the manners of an old one.

mod crashes;
mod old_server;
mod openssh;
mod sshd;

use super::*;

#[test]
fn paths_are_joined() {
    for (dir, name, path) in [
        ("", "a", "a"),
        (".", "a", "./a"),
        ("/srv/", "a/b", "/srv/a/b"),
        ("/", "a", "/a"),
        ("/srv", "", "/srv"),
    ] {
        assert_eq!(join(dir, name), path);
    }
}
