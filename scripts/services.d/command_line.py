"""The commands."""

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import processes
from azurite import Azurite
from clients import Clients
from minio import Minio
from mongodb import MongoDb
from openbao import OpenBao
from place import Place, default_directory
from rabbitmq import RabbitMq
from sftp import OldSftp, Sftp
from words import Failure, ending, say

SERVERS = {server.name: server for server in (
    RabbitMq(), Azurite(), MongoDb(), Minio(), OpenBao(), Sftp(), OldSftp(), Clients())}

HELP = """Installs, starts, checks and stops the real servers that tests talk to: all on 127.0.0.1, on ports chosen at the
first start, with everything in one directory. Several sets run beside each other with different directories."""

NOTES = f"""servers: {', '.join(SERVERS)}

cache: DROPGATE_CACHE, or dropgate below the user's cache directory. Default directory: DROPGATE_TEST_SERVICES, or
target/services of the checkout. A server is neither installed nor started when the environment already says where one is:
{', '.join(server.variables[0] for server in SERVERS.values())}.
"""


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Ended(BaseException):
    """A signal asks to end."""

    def __init__(self, number: int):
        self.number = number


def _end(number: int, _frame) -> None:
    if ending.is_set():
        # Once is enough: what still waits gives up by itself.
        return
    ending.set()
    raise _Ended(number)


def main() -> int:
    """Runs the command of the command line; its exit code."""
    arguments = _arguments()
    for number in _SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _end)
    try:
        return arguments.command(arguments)
    except Failure as failure:
        say(f"scripts/services: {failure}")
        return 1
    except _Ended as ended:
        return 128 + ended.number
    except BrokenPipeError:
        # Whoever read what is printed has seen enough; nothing is left to flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/services", description=HELP, epilog=NOTES, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, does, text: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=text, description=text)
        one.set_defaults(command=does)
        return one

    def names(one: argparse.ArgumentParser) -> None:
        one.add_argument("names", nargs="*", metavar="NAME", help="all when none is named")
        one.add_argument("--dir", type=Path, help="where the state of this set is")

    names(command("install", _install, "install into the cache what is not there yet"))
    names(command("start", _start, "start, after installing, and wait until healthy"))
    stop = command("stop", _stop, "end what was started here, and nothing else")
    names(stop)
    stop.add_argument("--kill", action="store_true", help="with SIGKILL, as a machine that loses power")
    names(command("pause", _pause, "SIGSTOP: connections stay open and nothing answers"))
    names(command("resume", _resume, "SIGCONT"))
    status = command("status", _status, "what runs, and where")
    names(status)
    status.add_argument("--json", action="store_true", help="for machines")
    env = command("env", _env, "lines NAME=value with the address of each, for a shell or a .env file")
    names(env)
    env.add_argument("--export", action="store_true", help="with `export` before each")
    env.add_argument("--json", action="store_true", help="for machines")
    run = command("run", _run, "start, run a command with the variables of `env`, stop in any case")
    names(run)
    run.add_argument("--keep", action="store_true", help="keep the temporary directory that is used without --dir")

    given, ours = [], sys.argv[1:]
    if "--" in ours:
        at = ours.index("--")
        ours, given = ours[:at], ours[at + 1:]
    arguments = parser.parse_args(ours)
    arguments.given = given
    if (arguments.command is _run) != bool(given):
        parser.error("`run` wants `-- COMMAND`, and only that")
    unknown = [name for name in arguments.names if name not in SERVERS]
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(SERVERS)}")
    arguments.servers = [SERVERS[name] for name in dict.fromkeys(arguments.names)] or list(SERVERS.values())
    return arguments


def _directory(arguments: argparse.Namespace) -> Path:
    return arguments.dir.absolute() if arguments.dir else default_directory()


def _each(servers: list, does) -> list:
    """Does it for all at once; says everything that failed."""
    if not servers:
        return []
    with ThreadPoolExecutor(len(servers)) as pool:
        jobs = [pool.submit(does, server) for server in servers]
        try:
            wait(jobs)
        except _Ended:
            # They have been told to give up; nobody may go on behind the back of what comes now.
            wait(jobs)
            raise
    failures = [str(job.exception()) for job in jobs if isinstance(job.exception(), Failure)]
    for job in jobs:
        error = job.exception()
        if error and not isinstance(error, Failure):
            raise error
    if failures:
        raise Failure("\n".join(failures))
    return [job.result() for job in jobs]


def _ours(arguments: argparse.Namespace) -> list:
    """Those that the environment does not replace."""
    ours = []
    for server in arguments.servers:
        if server.given(Place(_directory(arguments), server.name)):
            say(f"{server.name}: the one at {server.variables[0]}={os.environ[server.variables[0]]}")
        else:
            ours.append(server)
    return ours


def _install(arguments: argparse.Namespace) -> int:
    return _install_these(_ours(arguments))


def _install_these(ours: list) -> int:
    begin = time.monotonic()
    # One after the other would take little longer: what takes long is one build, which uses all processors.
    did = _each(ours, lambda server: server.install())
    if any(did):
        say(f"all is installed, in {time.monotonic() - begin:.0f} s")
    return 0


def _start(arguments: argparse.Namespace) -> int:
    ours = _ours(arguments)
    _install_these(ours)
    directory = _directory(arguments)

    def start(server) -> None:
        begin = time.monotonic()
        if server.start(Place(directory, server.name)):
            say(f"{server.name}: healthy after {time.monotonic() - begin:.1f} s")

    _each(ours, start)
    return 0


def _stop(arguments: argparse.Namespace) -> int:
    directory = _directory(arguments)

    def stop(server) -> None:
        begin = time.monotonic()
        if server.stop(Place(directory, server.name), arguments.kill):
            say(f"{server.name}: stopped in {time.monotonic() - begin:.1f} s")

    _each(arguments.servers, stop)
    return 0


def _pause(arguments: argparse.Namespace) -> int:
    for server in _ours(arguments):
        processes.pause(Place(_directory(arguments), server.name))
    return 0


def _resume(arguments: argparse.Namespace) -> int:
    for server in _ours(arguments):
        processes.resume(Place(_directory(arguments), server.name))
    return 0


def _status(arguments: argparse.Namespace) -> int:
    directory = _directory(arguments)
    rows = []
    for server in arguments.servers:
        place = Place(directory, server.name)
        given = server.given(place)
        known = given or place.exists()
        rows.append({
            "name": server.name, "server": server.title, "state": server.state(place),
            "address": server.environment(place)[server.variables[0]] if known else "",
            "pids": [] if given else [one.pid for one in processes.recorded(place).values()],
            "log": "" if given or not place.exists() else str(place.log),
        })
    if arguments.json:
        print(json.dumps(rows, indent=1))
    else:
        for row in [{"name": "NAME", "state": "STATE", "pids": ["PIDS"], "address": "ADDRESS"}, *rows]:
            pids = ",".join(map(str, row["pids"])) or "-"
            print(f"{row['name']:<10} {row['state']:<14} {pids:<16} {row['address'] or '-'}")
    return 0


def _environment(arguments: argparse.Namespace, directory: Path) -> dict:
    variables = {}
    for server in arguments.servers:
        place = Place(directory, server.name)
        if server.given(place) or place.exists() or server.name in arguments.names:
            variables.update(server.environment(place))
    if not variables:
        raise Failure(f"nothing was ever started in {directory}: run `scripts/services start`")
    # For tests that stop, pause and start servers.
    variables["DROPGATE_TEST_SERVICES"] = str(directory)
    return variables


def _env(arguments: argparse.Namespace) -> int:
    variables = _environment(arguments, _directory(arguments))
    if arguments.json:
        print(json.dumps(variables, indent=1))
        return 0
    for name, value in variables.items():
        print(f"{'export ' if arguments.export else ''}{name}={shlex.quote(value)}")
    return 0


def _run(arguments: argparse.Namespace) -> int:
    temporary = None
    if not arguments.dir:
        temporary = Path(tempfile.mkdtemp(prefix="dropgate-services-"))
        arguments.dir = temporary
    # Nobody wants the data of a temporary one.
    arguments.kill = temporary is not None
    times = []

    def timed(label: str, does):
        begin = time.monotonic()
        try:
            return does()
        finally:
            times.append(f"{label} {time.monotonic() - begin:.0f} s")

    code = 1
    try:
        timed("install", lambda: _install(arguments))
        timed("start", lambda: _start(arguments))
        env = {**os.environ, **_environment(arguments, arguments.dir.absolute())}
        code = timed("command", lambda: _foreground(arguments.given, env))
    finally:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        ending.clear()
        timed("stop", lambda: _stop(arguments))
        if temporary and code == 0 and not arguments.keep:
            shutil.rmtree(temporary, ignore_errors=True)
        elif temporary:
            say(f"state and logs are kept in {temporary}")
        say(f"scripts/services: {', '.join(times)}")
    return code


def _foreground(argv: list, env: dict) -> int:
    try:
        process = subprocess.Popen(argv, env=env)
    except OSError as error:
        raise Failure(f"{argv[0]} can't be run: {error}") from error
    try:
        code = process.wait()
    except _Ended as ended:
        # The terminal has sent its own to the whole group; others have only sent it here.
        process.send_signal(ended.number)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise
    return code if code >= 0 else 128 - code
