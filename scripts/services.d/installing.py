"""Installing into the cache: once, with the output in a log, with a sign of life while it takes long."""

import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

from place import cache_root, locked
from words import Failure, ending, go_on, say, tail


class Installation:
    """One server in one version: `directory` is its own, complete once the stamp is there."""

    def __init__(self, name: str, version: str):
        self.name = name
        self.directory = cache_root() / f"{name}-{version}"
        self.log = cache_root() / "logs" / f"install-{name}-{version}.log"
        self._stamp = self.directory / ".complete"

    def done(self) -> bool:
        """Whether nothing is left to do."""
        return self._stamp.exists()

    def once(self, build) -> bool:
        """Runs `build(self)` unless it is done; a second process waits for the first. Whether it was run."""
        if self.done():
            return False
        with locked(cache_root() / "locks" / self.directory.name, f"{self.name} is being installed"):
            if self.done():
                return False
            if self.directory.exists():
                remove(self.directory)
            self.directory.mkdir(parents=True)
            self.log.parent.mkdir(parents=True, exist_ok=True)
            self.log.write_bytes(b"")
            begin = time.monotonic()
            say(f"{self.name}: installing into {self.directory}")
            with _Signs(self, begin):
                build(self)
            self._stamp.touch()
            say(f"{self.name}: installed in {time.monotonic() - begin:.0f} s")
            return True

    def run(self, argv: list, remedy: str, env: dict | None = None, cwd: Path | None = None) -> str:
        """Runs a step; its output goes to the log and is returned. A failure names both and the remedy."""
        with self.log.open("a+b") as log:
            log.write(f"$ {' '.join(map(str, argv))}\n".encode())
            log.flush()
            begin = log.tell()
            try:
                process = subprocess.Popen(
                    argv, env={**os.environ, **(env or {})}, cwd=cwd or self.directory, stdin=subprocess.DEVNULL,
                    stdout=log, stderr=log, start_new_session=True)
                code = _ended(process)
            except OSError as error:
                raise Failure(f"{self.name}: {argv[0]} can't be run: {error}\n  what to do: {remedy}") from error
            log.flush()
            log.seek(begin)
            output = log.read().decode(errors="replace")
        if code != 0:
            raise Failure(
                f"{self.name} can't be installed: `{' '.join(map(str, argv))[:200]}` ended with {code}\n"
                f"{tail(self.log)}  log: {self.log}\n  what to do: {remedy}")
        return output

    def python(self, requirement: str, remedy: str, hashes: tuple = ()) -> None:
        """A virtual environment in `directory` with one package of PyPI."""
        self.run(["python3", "-m", "venv", str(self.directory)],
                 "install Python's venv module (Debian: apt-get install python3-venv)")
        wanted = self.directory / "wanted.txt"
        wanted.write_text(" ".join([requirement, *(f"--hash=sha256:{one}" for one in hashes)]) + "\n")
        pip = [str(self.directory / "bin/python"), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
        self.run([*pip, "-r", str(wanted)], remedy)

    def needs(self, program: str, remedy: str) -> str:
        """Path of a program that must be there."""
        path = shutil.which(program)
        if not path:
            raise Failure(f"{self.name} can't be installed: there is no `{program}`\n  what to do: {remedy}")
        return path


def _ended(process: subprocess.Popen) -> int:
    """Waits for a step; if a signal asks to end, ends it with all that it started."""
    while True:
        try:
            return process.wait(0.2)
        except subprocess.TimeoutExpired:
            if ending.is_set():
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                go_on()


class _Signs:
    """Says every 20 seconds that an installation is still under way."""

    def __init__(self, installation: Installation, begin: float):
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._say, args=(installation, begin), daemon=True)

    def _say(self, installation: Installation, begin: float) -> None:
        while not self._over.wait(20):
            say(f"{installation.name}: still installing after {time.monotonic() - begin:.0f} s, "
                  f"log {installation.log}")

    def __enter__(self):
        self._thread.start()

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()


def remove(directory: Path) -> None:
    """Removes a tree, also one with read-only directories as Go's module cache has."""
    for root, names, _ in os.walk(directory):
        for name in names:
            path = os.path.join(root, name)
            if not os.path.islink(path):
                os.chmod(path, 0o700)
    shutil.rmtree(directory)
