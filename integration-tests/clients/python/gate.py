"""Where the gate is, and the steps that a library is told by the command line: put, put-with-times, put-renamed, put-and-stat,
resume, put-tree, put-at-once, list, get, remove. A step that fails ends with code 1 and says why."""

import os
import sys
from pathlib import Path

HOST = os.environ["GATE_HOST"]
PORT = int(os.environ["GATE_PORT"])
USER = os.environ["GATE_USER"]
PASSWORD = os.environ["GATE_PASSWORD"]
KEY = os.environ["GATE_KEY"]
KNOWN_HOSTS = os.environ["GATE_KNOWN_HOSTS"]

ARGUMENTS = sys.argv[2:]


def pairs() -> list:
    """The files of put-at-once."""
    return list(zip(ARGUMENTS[::2], ARGUMENTS[1::2]))


def walk(local: str, remote: str):
    """Directories and files below `local`, each before what is in it: path here, path there, whether it is a directory."""
    yield Path(local), remote, True
    for path in sorted(Path(local).rglob("*")):
        yield path, f"{remote}/{path.relative_to(local).as_posix()}", path.is_dir()


def run(steps: dict) -> None:
    """Takes the step."""
    try:
        steps[sys.argv[1]](*ARGUMENTS)
    except Exception as error:  # noqa: BLE001: whatever a library raises is its refusal
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)
