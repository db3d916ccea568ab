"""MongoDB: SecantusDB from PyPI, which speaks its wire protocol over WiredTiger. A test process only, never shipped."""

import socket
import struct

from installing import Installation
from place import Place
from processes import Part
from server import Server

REMEDY = "check pip's index setting, or start a MongoDB yourself and set DROPGATE_TEST_MONGODB_URI"
# OP_MSG with the document {hello: 1, $db: "admin"}.
_HELLO = b"\x00\x00\x00\x00\x00" + (
    lambda body: struct.pack("<i", len(body) + 5) + body + b"\0")(
        b"\x10hello\0" + struct.pack("<i", 1) + b"\x02$db\0" + struct.pack("<i", 6) + b"admin\0")


class MongoDb(Server):
    name = "mongodb"
    title = "SecantusDB 0.7.0b3 (MongoDB wire protocol)"
    variables = ("DROPGATE_TEST_MONGODB_URI",)
    ports = ("port",)
    installation = Installation("secantusdb", "0.7.0b3")

    def install(self) -> bool:
        return self.installation.once(lambda it: it.python("SecantusDB==0.7.0b3", REMEDY))

    def prepare(self, place: Place, settings: dict) -> None:
        # Named on the command line, it keeps the server from looking for one in the user's home.
        (place.root / "secantusd.toml").write_text("")

    def parts(self, place: Place, settings: dict) -> list[Part]:
        return [Part("server", [
            str(self.installation.directory / "bin/secantusd-py"), "--config", str(place.root / "secantusd.toml"),
            "--host", "127.0.0.1", "--port", str(settings["port"]), "--storage-path", str(place.data),
            "--cache-size", "256M", "--log-level", "WARNING"])]

    def healthy(self, place: Place, settings: dict) -> bool:
        message = struct.pack("<iii", 1, 0, 2013) + _HELLO
        try:
            with socket.create_connection(("127.0.0.1", settings["port"]), timeout=2) as connection:
                connection.settimeout(2)
                connection.sendall(struct.pack("<i", len(message) + 4) + message)
                answer = connection.recv(65_536)
        except OSError:
            return False
        return b"isWritablePrimary\0\x01" in answer

    def describe(self, place: Place, settings: dict) -> dict:
        # For each retryable write this server looks through all of the last half hour: after some ten thousand, that takes
        # longer than the write. The adapter repeats by itself what may be repeated, so the driver need not.
        address = f"mongodb://127.0.0.1:{settings['port']}/?directConnection=true&retryWrites=false"
        return {self.variables[0]: address}
