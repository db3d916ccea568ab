"""S3: MinIO, built from its Go module. Its makers have archived it: a test server, nothing to run a business on."""

import os

from installing import Installation, remove
from place import Place
from processes import Part
from server import Server, answer
from toolchains import go

# The last commit of the archived repository: not every module proxy holds that of the last release, four months older.
MODULE = "github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c"
REMEDY = "check Go's proxy setting, or start an S3 store yourself and set DROPGATE_TEST_S3_ENDPOINT with its keys"
USER = "dropgate"


class Minio(Server):
    name = "minio"
    title = "MinIO (S3)"
    variables = (
        "DROPGATE_TEST_S3_ENDPOINT", "DROPGATE_TEST_S3_ACCESS_KEY", "DROPGATE_TEST_S3_SECRET_KEY", "DROPGATE_TEST_S3_REGION")
    ports = ("api",)
    passwords = ("secret",)
    installation = Installation("minio", "20260212")

    def install(self) -> bool:
        return self.installation.once(self._build)

    def _build(self, installation: Installation) -> None:
        scratch = installation.directory / "build"
        env = {
            "GOBIN": str(installation.directory), "GOPATH": str(scratch / "path"), "GOMODCACHE": str(scratch / "modules"),
            "GOCACHE": str(scratch / "cache"), "CGO_ENABLED": "0", "GOOS": "", "GOARCH": "",
        }
        # Whoever works beside this minutes-long build goes first.
        installation.run(["nice", "-n", "5", go(REMEDY), "install", "-trimpath", "-ldflags=-s -w", MODULE], REMEDY, env=env)
        remove(scratch)

    def parts(self, place: Place, settings: dict) -> list[Part]:
        env = {
            **{name: "" for name in os.environ if name.startswith("MINIO_")},
            "HOME": str(place.root), "MINIO_ROOT_USER": USER, "MINIO_ROOT_PASSWORD": settings["secret"],
            "MINIO_BROWSER": "off", "MINIO_UPDATE": "off", "MINIO_CALLHOME_ENABLE": "off",
        }
        return [Part("server", [
            str(self.installation.directory / "minio"), "server", str(place.data), "--quiet",
            "--address", f"127.0.0.1:{settings['api']}", "--certs-dir", str(place.root / "certs")], env)]

    def healthy(self, place: Place, settings: dict) -> bool:
        # Alive is said a moment before the store takes requests.
        api = f"http://127.0.0.1:{settings['api']}/minio/health"
        return answer(f"{api}/live")[0] == 200 and answer(f"{api}/cluster")[0] == 200

    def describe(self, place: Place, settings: dict) -> dict:
        return dict(zip(self.variables, (
            f"http://127.0.0.1:{settings['api']}", USER, settings["secret"], "us-east-1")))
