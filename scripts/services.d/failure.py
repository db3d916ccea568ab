"""What went wrong, in words for whoever runs the script."""

from pathlib import Path


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
