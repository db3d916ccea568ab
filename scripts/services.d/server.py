"""What every server has in common: how it is replaced, installed, started, checked and described."""

import os
import time
import urllib.error
import urllib.request

from installing import Installation
from place import Place
from processes import Part, launch, members, paused, recorded, stop
from words import Failure, go_on, tail


class Server:
    """One kind of server. Each module beside this one that defines a server says how that one is run."""

    name = ""
    # What it is, for people.
    title = ""
    # The variables it is described by. Whoever sets the first one brings a server of their own.
    variables: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    passwords: tuple[str, ...] = ()
    installation: Installation
    # Seconds that it has to become healthy, and to end.
    patience = 120.0
    grace = 20.0

    def given(self, place: Place | None = None) -> bool:
        """Whether the environment names one that already runs; the one of `place` itself, as `env` prints it, does not count."""
        address = os.environ.get(self.variables[0])
        if not address or place is None or not place.exists():
            return bool(address)
        return self.describe(place, place.settings())[self.variables[0]] != address

    def install(self) -> bool:
        """Makes sure that it is in the cache. Whether there was something to do."""
        raise NotImplementedError

    def prepare(self, place: Place, settings: dict) -> None:
        """Writes its configuration; called before each start."""

    def parts(self, place: Place, settings: dict) -> list[Part]:
        """What to start, in this order."""
        raise NotImplementedError

    def healthy(self, place: Place, settings: dict) -> bool:
        """Whether it answers properly."""
        raise NotImplementedError

    def ready(self, place: Place, settings: dict) -> None:
        """What is left to set up once it is healthy for the first time; may be called again."""

    def describe(self, place: Place, settings: dict) -> dict:
        """Its variables: where it is and how to get in."""
        raise NotImplementedError

    def environment(self, place: Place) -> dict:
        """Its variables, those of a server brought along as they are."""
        if self.given(place):
            return {name: os.environ[name] for name in self.variables if os.environ.get(name)}
        return self.describe(place, place.settings())

    def start(self, place: Place) -> bool:
        """Starts it unless it runs, and waits until it is healthy. Whether it was started."""
        with place.lock():
            if place.exists() and self._runs(place):
                if paused(place):
                    raise Failure(f"{self.name} is paused: `scripts/services resume {self.name}` lets it go on")
                self._await(place, place.settings())
                return False
            stop(place, 0, at_once=True)
            settings = place.prepare(self.ports, self.passwords)
            try:
                self.prepare(place, settings)
                for part in self.parts(place, settings):
                    launch(place, part)
                self._await(place, settings)
                self.ready(place, settings)
            except BaseException:
                stop(place, 0, at_once=True)
                raise
            return True

    def _runs(self, place: Place) -> bool:
        names = [part.name for part in self.parts(place, place.settings())]
        return set(names) <= set(recorded(place))

    def _await(self, place: Place, settings: dict) -> None:
        end = time.monotonic() + self.patience
        while not self.healthy(place, settings):
            go_on()
            if not self._runs(place):
                raise Failure(
                    f"{self.name} ended while it was starting\n{tail(place.log)}  log: {place.log}\n"
                    f"  what to do: see the log; if its port was taken meanwhile, remove {place.root} and start again")
            if time.monotonic() > end:
                raise Failure(
                    f"{self.name} was not healthy within {self.patience:.0f} s\n{tail(place.log)}  log: {place.log}\n"
                    "  what to do: see the log; on a slow or full machine try again")
            time.sleep(0.1)

    def stop(self, place: Place, at_once: bool = False) -> bool:
        """Ends it. Whether something ran."""
        if not place.exists():
            return False
        with place.lock():
            return stop(place, self.grace, at_once)

    def state(self, place: Place) -> str:
        """One word for people."""
        if self.given(place):
            return "given"
        if not place.exists():
            return "never started"
        if not self._runs(place):
            return "partly dead" if members(place) else "stopped"
        if paused(place):
            return "paused"
        return "healthy" if self.healthy(place, place.settings()) else "unhealthy"


def answer(url: str, headers: dict | None = None, method: str = "GET", body: bytes | None = None):
    """Status and body of an HTTP answer; (0, b"") if there was none within two seconds."""
    request = urllib.request.Request(url, data=body, headers=headers or {}, method=method)
    # Loopback is never reached through a proxy, whatever the environment says.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=2) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, b""
    except OSError:
        return 0, b""
