"""RabbitMQ: Debian's package unpacked into the cache, with a port mapper, cookie and node of its own."""

import base64
import os
from pathlib import Path

import debian
from installing import Installation
from place import Place
from processes import Part
from server import Server, answer
from words import Failure

USER = "dropgate"


class RabbitMq(Server):
    name = "rabbitmq"
    title = "RabbitMQ (Debian package)"
    variables = (
        "DROPGATE_TEST_AMQP_URI", "DROPGATE_TEST_RABBITMQ_API", "DROPGATE_TEST_RABBITMQ_USER",
        "DROPGATE_TEST_RABBITMQ_PASSWORD")
    ports = ("amqp", "api", "dist", "epmd")
    passwords = ("password", "cookie")
    grace = 40.0
    installation = Installation("rabbitmq", "debian")

    def install(self) -> bool:
        return self.installation.once(self._build)

    def _build(self, installation: Installation) -> None:
        debian.unpack(installation, "rabbitmq-server", "erlang-")
        erlang = installation.directory / "usr/lib/erlang"
        # The package's start script knows only the place it is made for.
        script = erlang / "bin/erl"
        script.write_text(script.read_text().replace("/usr/lib/erlang", str(erlang)))
        self._home()
        installation.run(
            [str(script), "-noshell", "-eval", "ok = crypto:start(), halt()."],
            "a shared library that Erlang needs is missing: install the package that holds it",
            env=self._base())

    def _home(self) -> Path:
        found = sorted((self.installation.directory / "usr/lib/rabbitmq/lib").glob("rabbitmq_server-*"))
        if not found:
            raise Failure(f"{self.name}: the Debian package holds no server: see {self.installation.directory}")
        return found[-1]

    def _base(self) -> dict:
        root = self.installation.directory
        libraries = [str(one) for one in root.glob("usr/lib/*-linux-gnu*")]
        return {
            "PATH": f"{root}/usr/lib/erlang/bin:{os.environ.get('PATH', '/usr/bin:/bin')}",
            "LD_LIBRARY_PATH": ":".join(libraries),
            "LC_ALL": "C.UTF-8",
        }

    def prepare(self, place: Place, settings: dict) -> None:
        (place.root / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{settings['amqp']}\n"
            f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {settings['api']}\n"
            f"default_user = {USER}\ndefault_pass = {settings['password']}\ndefault_user_tags.administrator = true\n"
            # Small: several of these run beside each other, and on a developer's disk.
            "vm_memory_high_watermark.absolute = 1GB\ndisk_free_limit.absolute = 100MB\n"
            "raft.wal_max_size_bytes = 67108864\n"
            # Tests look at the API; the usual 5 seconds would be most of their time.
            "collect_statistics_interval = 1000\n")
        (place.root / "enabled_plugins").write_text("[rabbitmq_management].\n")
        (place.root / "rabbitmq-env.conf").write_text("")
        (place.root / "advanced.config").write_text("[].\n")
        home = place.root / "home"
        home.mkdir(exist_ok=True)
        cookie = home / ".erlang.cookie"
        if not cookie.exists():
            cookie.touch(mode=0o600)
            cookie.write_text(settings["cookie"])
            cookie.chmod(0o400)

    def parts(self, place: Place, settings: dict) -> list[Part]:
        root, server = place.root, self._home()
        env = {
            # What an operator's shell has set for a broker of their own must not leak in.
            **{name: "" for name in os.environ if name.startswith("RABBITMQ_")},
            **self._base(),
            "HOME": f"{root}/home",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(settings["epmd"]),
            "RABBITMQ_NODENAME": "dropgate@localhost",
            "RABBITMQ_CONF_ENV_FILE": f"{root}/rabbitmq-env.conf",
            "RABBITMQ_CONFIG_FILE": f"{root}/rabbitmq.conf",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{root}/advanced.config",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{root}/enabled_plugins",
            "RABBITMQ_PLUGINS_DIR": f"{server}/plugins",
            "RABBITMQ_MNESIA_BASE": str(place.data),
            "RABBITMQ_LOG_BASE": f"{root}/logs",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": f"{root}/pid",
            "RABBITMQ_DIST_PORT": str(settings["dist"]),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            # Makes the start script become the server instead of waiting for it.
            "RUNNING_UNDER_SYSTEMD": "true",
        }
        epmd = f"{self.installation.directory}/usr/lib/erlang/bin/epmd"
        return [
            Part("epmd", [epmd, "-address", "127.0.0.1", "-port", str(settings["epmd"])], env),
            Part("server", [f"{server}/sbin/rabbitmq-server"], env),
        ]

    def healthy(self, place: Place, settings: dict) -> bool:
        login = base64.b64encode(f"{USER}:{settings['password']}".encode()).decode()
        api = f"http://127.0.0.1:{settings['api']}/api/health/checks"
        headers = {"Authorization": f"Basic {login}"}
        return all(
            answer(f"{api}/{check}", headers)[0] == 200
            for check in (f"port-listener/{settings['amqp']}", "local-alarms"))

    def describe(self, place: Place, settings: dict) -> dict:
        return dict(zip(self.variables, (
            f"amqp://{USER}:{settings['password']}@127.0.0.1:{settings['amqp']}/%2f",
            f"http://127.0.0.1:{settings['api']}", USER, settings["password"])))
