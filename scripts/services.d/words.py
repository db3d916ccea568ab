"""What is said to whoever runs the script."""

import sys
import threading
from pathlib import Path

# Set when a signal asks to end: whoever waits gives up.
ending = threading.Event()


def say(line: str) -> None:
    """One line, at once and in one piece: several servers are being dealt with at a time. Not where data is printed."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def go_on() -> None:
    """Raises in a thread that waits, once a signal has asked to end."""
    if ending.is_set():
        raise Failure("interrupted")


class Failure(Exception):
    """Ends the command: what failed, where to look, what to do."""


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log, indented; empty if there is none."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - 16_384))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "".join(f"    | {line}\n" for line in text.splitlines()[-lines:])
