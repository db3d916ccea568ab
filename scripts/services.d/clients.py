"""Clients of the servers from other makers, for tests that must not look through our own code: Python with their libraries."""

from installing import Installation
from place import Place
from server import Server

WANTED = ("pymongo==4.20.0", "pika==1.4.4", "boto3==1.44.5", "azure-storage-blob==12.31.1", "hvac==2.4.0")


class Clients(Server):
    name = "clients"
    title = "Python with pymongo, pika, boto3, azure-storage-blob and hvac"
    variables = ("DROPGATE_TEST_PYTHON",)
    installation = Installation("clients", "1")

    def install(self) -> bool:
        remedy = "check pip's index setting, or set DROPGATE_TEST_PYTHON to a Python that has " + ", ".join(WANTED)
        return self.installation.once(lambda it: it.python("\n".join(WANTED), remedy))

    def parts(self, place: Place, settings: dict) -> list:
        return []

    def healthy(self, place: Place, settings: dict) -> bool:
        return True

    def describe(self, place: Place, settings: dict) -> dict:
        return {self.variables[0]: str(self.installation.directory / "bin/python")}
