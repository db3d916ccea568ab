"""Azure Blob: Azurite from npm, with its well-known account."""

import os
import shutil
from pathlib import Path

from installing import Installation
from place import Place
from processes import Part
from server import Server, answer
from toolchains import node, npm

ACCOUNT = "devstoreaccount1"
# Published in Azurite's documentation: every Azurite has it.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
REMEDY = "check npm's registry setting, or start an Azurite yourself and set DROPGATE_TEST_AZURE_ENDPOINT"


class Azurite(Server):
    name = "azurite"
    title = "Azurite 3.37 (Azure Blob)"
    variables = ("DROPGATE_TEST_AZURE_ENDPOINT", "DROPGATE_TEST_AZURE_ACCOUNT", "DROPGATE_TEST_AZURE_KEY")
    ports = ("blob",)
    installation = Installation("azurite", "3.37.0")

    def install(self) -> bool:
        return self.installation.once(self._build)

    def _build(self, installation: Installation) -> None:
        # The versions of all that it needs are in the lock file: left to npm, they change with the registry and with Node.js.
        for name in ("package.json", "package-lock.json"):
            shutil.copy(Path(__file__).with_name("azurite.npm") / name, installation.directory)
        installation.run([npm(REMEDY), "ci", "--no-fund", "--no-audit"], REMEDY, env=self._path())

    @staticmethod
    def _path() -> dict:
        # Azurite looks for node in the path, as npm does for what it installs.
        directory = os.path.dirname(node(REMEDY))
        return {"PATH": f"{directory}:{os.environ.get('PATH', '/usr/bin:/bin')}"}

    def parts(self, place: Place, settings: dict) -> list[Part]:
        program = self.installation.directory / "node_modules/.bin/azurite-blob"
        # Clients send the API version of their SDK, which may be newer than this server.
        return [Part("server", [
            str(program), "--blobHost", "127.0.0.1", "--blobPort", str(settings["blob"]), "--location", str(place.data),
            "--silent", "--disableTelemetry", "--skipApiVersionCheck"], self._path())]

    def healthy(self, place: Place, settings: dict) -> bool:
        # It is up when it refuses what is not signed.
        return answer(f"http://127.0.0.1:{settings['blob']}/{ACCOUNT}?comp=list")[0] == 403

    def describe(self, place: Place, settings: dict) -> dict:
        return dict(zip(self.variables, (f"http://127.0.0.1:{settings['blob']}/{ACCOUNT}", ACCOUNT, KEY)))
