"""Processes that outlive the script, and are later found again without ever taking a stranger for one of them."""

import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from place import Place, write_atomically
from words import Failure, tail

MARK = "DROPGATE_SERVICES_MARK"


@dataclass(frozen=True)
class Part:
    """A process to start: most servers have one, RabbitMQ also has its port mapper."""

    name: str
    argv: list
    env: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Seen:
    """A process as /proc shows it."""

    pid: int
    parent: int
    state: str
    started: int


def _look(pid: int):
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The name before it is in parentheses, and may hold any.
    fields = text[text.rindex(")") + 2:].split()
    return Seen(pid, int(fields[1]), fields[0], int(fields[19]))


def _all() -> dict:
    seen = (_look(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {one.pid: one for one in seen if one and one.state not in "ZX"}


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _records(place: Place) -> dict:
    try:
        records = json.loads((place.root / "processes.json").read_text())
    except FileNotFoundError:
        return {}
    return records["parts"] if records["boot"] == _boot() else {}


def recorded(place: Place) -> dict:
    """Those of its parts that still run, by name. A recycled process id has another start time."""
    everyone = _all()
    running = {}
    for name, (pid, started) in _records(place).items():
        one = everyone.get(pid)
        if one and one.started == started:
            running[name] = one
    return running


def members(place: Place) -> list:
    """Every process of this server: the recorded ones, what carries its mark, and their descendants.

    The mark is a variable in the environment, or the log as standard error: a session of sshd writes its title over the
    variables, and lives on when its parent is killed.
    """
    if not place.exists():
        return []
    wanted = f"{MARK}={place.settings()['mark']}".encode()
    everyone = _all()
    ours = {one.pid for one in recorded(place).values()}
    for pid in everyone:
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            if wanted in environment or os.path.samefile(f"/proc/{pid}/fd/2", place.log):
                ours.add(pid)
        except OSError:
            pass
    grown = True
    while grown:
        children = {one.pid for one in everyone.values() if one.parent in ours} - ours
        ours |= children
        grown = bool(children)
    return [everyone[pid] for pid in sorted(ours) if pid in everyone]


def send(one: Seen, number: int) -> None:
    """Signals this very process, or nobody."""
    try:
        handle = os.pidfd_open(one.pid)
    except (ProcessLookupError, OSError):
        return
    try:
        now = _look(one.pid)
        if now and now.started == one.started:
            signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)


def launch(place: Place, part: Part) -> None:
    """Starts a part in a session of its own, and writes down which process it is."""
    env = {**os.environ, **part.env, MARK: place.settings()["mark"]}
    with place.log.open("ab") as log:
        log.write(f"--- {time.strftime('%Y-%m-%dT%H:%M:%S%z')} starting {part.name}: {part.argv}\n".encode())
        log.flush()
        try:
            process = subprocess.Popen(
                part.argv, env=env, cwd=place.root, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True)
        except OSError as error:
            raise Failure(f"{place.name}: {part.argv[0]} can't be run: {error}") from error
    one = _look(process.pid)
    records = _records(place)
    records[part.name] = (process.pid, one.started if one else 0)
    write_atomically(place.root / "processes.json", json.dumps({"boot": _boot(), "parts": records}))
    # It is not waited for: it outlives the script. A note that it still runs is of no use to anyone.
    process.returncode = 0


def paused(place: Place) -> bool:
    """Whether its first recorded process is stopped by a signal."""
    return any(one.state in "Tt" for one in recorded(place).values())


def pause(place: Place) -> None:
    """SIGSTOP to all of it: connections stay open and nothing answers."""
    _signal_all(place, signal.SIGSTOP)


def resume(place: Place) -> None:
    """SIGCONT to all of it."""
    _signal_all(place, signal.SIGCONT)


def _signal_all(place: Place, number: int) -> None:
    found = members(place)
    if not found:
        raise Failure(f"{place.name} does not run in {place.root.parent}")
    for one in found:
        send(one, number)


def stop(place: Place, grace: float, at_once: bool = False) -> bool:
    """Ends it: politely first, unless `at_once`, with all that it left behind. False if nothing ran."""
    if not members(place):
        return False
    if not at_once:
        for one in members(place):
            send(one, signal.SIGCONT)
        # The last started first, so that each still has what it relies on.
        for name in reversed(list(_records(place))):
            one = recorded(place).get(name)
            if one:
                send(one, signal.SIGTERM)
                _wait(lambda: name not in recorded(place), grace)
    for _ in range(5):
        for one in members(place):
            send(one, signal.SIGKILL)
        if _wait(lambda: not members(place), 5):
            (place.root / "processes.json").unlink(missing_ok=True)
            return True
    pids = ", ".join(str(one.pid) for one in members(place))
    raise Failure(f"{place.name} does not end: processes {pids} survived SIGKILL\n{tail(place.log)}")


def _wait(condition, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
