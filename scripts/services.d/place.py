"""Where things are: the cache of installed servers, and the state of one set of running ones."""

import contextlib
import fcntl
import json
import os
import random
import secrets
import socket
import time
from pathlib import Path

from words import Failure, go_on, say

CHECKOUT = Path(__file__).resolve().parents[2]


def cache_root() -> Path:
    """What is installed lies here, outside the checkout, for all checkouts of this user."""
    given = os.environ.get("DROPGATE_CACHE")
    if given:
        return Path(given).absolute()
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home).absolute() / "dropgate"


def default_directory() -> Path:
    """State of the servers that belong to this checkout."""
    given = os.environ.get("DROPGATE_TEST_SERVICES")
    if given:
        return Path(given).absolute()
    return Path(os.environ.get("CARGO_TARGET_DIR") or CHECKOUT / "target").absolute() / "services"


@contextlib.contextmanager
def locked(path: Path, waiting_for: str | None = None):
    """Holds a lock file; says what it waits for, if that may take long and someone else has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        while not _try_lock(file):
            if waiting_for:
                say(f"waiting for another process: {waiting_for}")
                waiting_for = None
            go_on()
            time.sleep(0.05)
        yield


def _try_lock(file) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write_atomically(path: Path, text: str, mode: int = 0o600) -> None:
    """A reader sees the old content or the new one."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)
    fresh.rename(path)


class Place:
    """The directory of one server in one set: its data, its log, its ports and passwords, which outlive a restart."""

    def __init__(self, directory: Path, name: str):
        self.name = name
        self.root = directory / name
        self.log = self.root / "log"
        self.data = self.root / "data"
        self._settings = self.root / "settings.json"

    def exists(self) -> bool:
        """Whether it was ever started here."""
        return self._settings.exists()

    def lock(self):
        """Only one start or stop of this server at a time."""
        return locked(self.root / "lock", f"{self.name} is being started or stopped in {self.root}")

    def settings(self) -> dict:
        """Ports and passwords as they were chosen at the first start."""
        try:
            return json.loads(self._settings.read_text())
        except FileNotFoundError:
            raise Failure(f"{self.name} was never started in {self.root.parent}: run `scripts/services start`") from None

    def prepare(self, ports: tuple, passwords: tuple) -> dict:
        """Makes the directory and chooses what is not chosen yet."""
        for directory in (self.root, self.data):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        settings = self.settings() if self.exists() else {"mark": secrets.token_hex(16)}
        lacking = [name for name in ports if name not in settings]
        settings.update(zip(lacking, free_ports(len(lacking), self.root)))
        for name in passwords:
            settings.setdefault(name, secrets.token_hex(16))
        write_atomically(self._settings, json.dumps(settings, indent=1))
        return settings

    def change(self, **values) -> dict:
        """Adds to what was chosen."""
        settings = {**self.settings(), **values}
        write_atomically(self._settings, json.dumps(settings, indent=1))
        return settings


def free_ports(count: int, owner: Path) -> list[int]:
    """Loopback ports that nobody listens on and no other set of servers of this user has chosen.

    Below the range from which outgoing connections get theirs: a server that is stopped for a while must find its port
    free when it comes back.
    """
    if count == 0:
        return []
    try:
        top = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError):
        top = 32_768
    candidates = list(range(10_240, top if top > 12_000 else 32_768))
    random.shuffle(candidates)
    registry = cache_root() / "ports.json"
    with locked(cache_root() / "ports.lock"):
        try:
            taken = json.loads(registry.read_text())
        except (OSError, ValueError):
            taken = {}
        # Those of a directory that is gone are free again; a fresh one has an hour to write its settings.
        taken = {
            port: entry for port, entry in taken.items()
            if Path(entry["owner"], "settings.json").exists() or 0 <= time.time() - entry["since"] < 3600
        }
        chosen: list[int] = []
        for port in candidates:
            if len(chosen) == count:
                break
            if str(port) not in taken and _is_free(port):
                taken[str(port)] = {"owner": str(owner), "since": time.time()}
                chosen.append(port)
        if len(chosen) < count:
            raise Failure("no free loopback port was found: stop what occupies them")
        write_atomically(registry, json.dumps(taken))
    return chosen


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
