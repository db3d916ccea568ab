"""SFTP destinations: OpenSSH's server as it is today, and one with the abilities of many years ago."""

import os
import pwd
import socket
import subprocess
from pathlib import Path

import debian
from installing import Installation
from place import CHECKOUT, Place
from processes import Part
from server import Server
from words import Failure

REMEDY = "install OpenSSH's server (Debian: apt-get install openssh-server), or run scripts/test-deps"


class Sftp(Server):
    name = "sftp"
    title = "OpenSSH sshd"
    prefix = "DROPGATE_TEST_SFTP"
    ports = ("port",)
    host_keys: tuple[str, ...] = ("ed25519", "rsa")
    options = ""
    # More arguments of the subsystem.
    arguments = ""
    installation = Installation("openssh", "debian")

    def __init__(self):
        self.variables = tuple(f"{self.prefix}{name}" for name in ("", "_USER", "_ROOT", "_KEY", "_HOST_KEY", "_KNOWN_HOSTS"))

    def install(self) -> bool:
        if self._system() == Path("/"):
            return False
        return self.installation.once(self._build)

    def _build(self, installation: Installation) -> None:
        if os.geteuid() == 0:
            # Run by root, it gives up privileges to a user that only the installed package makes.
            installation.run([str(CHECKOUT / "scripts/test-deps")], REMEDY)
        else:
            debian.unpack(installation, "openssh-server", "openssh-sftp")

    def _system(self):
        """The root directory below which the server lies, or None."""
        roots = (Path("/"), self.installation.directory)
        return next((root for root in roots if (root / "usr/sbin/sshd").is_file()), None)

    def prepare(self, place: Place, settings: dict) -> None:
        if self._system() is None:
            raise Failure(f"{self.name}: there is no sshd\n  what to do: {REMEDY}")
        if any(char.isspace() for char in str(place.root)):
            raise Failure(f"{self.name}: its directory must have no space in its name: {place.root}")
        for kind in self.host_keys:
            _keygen(place.root / f"host_{kind}", kind)
        _keygen(place.root / "login.key", "ed25519")
        known = ""
        for kind in self.host_keys:
            public = (place.root / f"host_{kind}.pub").read_text().strip()
            known += f"[127.0.0.1]:{settings['port']} {public}\n"
        (place.root / "known_hosts").write_text(known)
        keys = "".join(f"HostKey {place.root}/host_{kind}\n" for kind in self.host_keys)
        (place.root / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1:{settings['port']}\n{keys}PidFile none\nUsePAM no\nStrictModes no\nUseDNS no\n"
            "PermitRootLogin yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            f"AuthorizedKeysFile {place.root}/login.key.pub\n"
            # The same code as the separate program has, but needs no shell of the user.
            f"Subsystem sftp internal-sftp -d {place.data} {self.arguments}\n"
            # Of two values sshd takes the first.
            f"{self.options}MaxStartups 1000\nMaxSessions 100\n")
        if os.geteuid() == 0:
            # Privilege separation wants it, and only the package's service makes it.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)

    def parts(self, place: Place, settings: dict) -> list[Part]:
        root = self._system() or Path("/")
        libraries = "" if root == Path("/") else ":".join(str(one) for one in root.glob("usr/lib/*-linux-gnu*"))
        env = {"LD_LIBRARY_PATH": libraries} if libraries else {}
        return [Part("server", [str(root / "usr/sbin/sshd"), "-D", "-e", "-f", str(place.root / "sshd_config")], env)]

    def healthy(self, place: Place, settings: dict) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", settings["port"]), timeout=2) as connection:
                connection.settimeout(2)
                return connection.recv(8) == b"SSH-2.0-"
        except OSError:
            return False

    def describe(self, place: Place, settings: dict) -> dict:
        said = subprocess.run(
            ["ssh-keygen", "-l", "-E", "sha256", "-f", str(place.root / f"host_{self.host_keys[0]}.pub")],
            capture_output=True, text=True, check=True).stdout
        user = pwd.getpwuid(os.geteuid()).pw_name
        return dict(zip(self.variables, (
            f"sftp://{user}@127.0.0.1:{settings['port']}{place.data}", user, str(place.data),
            str(place.root / "login.key"), said.split()[1], str(place.root / "known_hosts"))))


class OldSftp(Sftp):
    """No SFTP extension, one RSA host key, and the algorithms that a server of 2014 shares with a present-day client."""

    name = "sftp-old"
    title = "OpenSSH sshd, limited"
    prefix = "DROPGATE_TEST_SFTP_OLD"
    host_keys = ("rsa",)
    options = (
        "KexAlgorithms diffie-hellman-group14-sha256,diffie-hellman-group-exchange-sha256\n"
        "Ciphers aes128-ctr,aes256-ctr\nMACs hmac-sha2-256\n"
        "HostKeyAlgorithms rsa-sha2-256,rsa-sha2-512\nMaxSessions 1\nAllowTcpForwarding no\n")
    arguments = "-P posix-rename,statvfs,fstatvfs,hardlink,fsync,lsetstat,limits,expand-path,copy-data"


def _keygen(path: Path, kind: str) -> None:
    if path.exists() and path.with_name(f"{path.name}.pub").exists():
        return
    path.unlink(missing_ok=True)
    bits = ["-b", "3072"] if kind == "rsa" else []
    try:
        subprocess.run(
            ["ssh-keygen", "-q", "-t", kind, *bits, "-N", "", "-C", "dropgate-test", "-f", str(path)], check=True,
            stdin=subprocess.DEVNULL, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Failure(f"ssh-keygen fails: {error}\n  what to do: install OpenSSH's client (Debian: openssh-client)") from error
