"""What a cluster left in its servers, seen through clients from other makers: pymongo, pika, boto3 and Azure's own.

cluster.py prepare NAME ED25519 RSA
                          makes container, bucket and virtual host of that name, and a secret with the two host keys
cluster.py evidence NAME  prints one JSON object with everything that the checker compares
cluster.py rest NAME WIPED SECONDS
                          waits until nothing is under way any more, or the time is over; prints what still is. After a
                          wipe of the broker (`true`, otherwise `false`) published events are not counted
cluster.py wipe NAME      removes the virtual host with all queues, and makes it again
cluster.py remove NAME    removes what `prepare` made, and the database

The servers are named by the DROPGATE_TEST_* variables.
"""

import base64
import hashlib
import json
import os
import sys
import time
import urllib.error
import urllib.request
from datetime import datetime, timedelta, timezone
from urllib.parse import quote, urlsplit

import boto3
import hvac
import pika
import pymongo
from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import BlobServiceClient, generate_container_sas
from botocore.config import Config
from bson.decimal128 import Decimal128

# Work that is due later belongs to an upload that is still in flight, or is a doorbell that nobody answers any more.
IN_FLIGHT = ["committed", "delivering", "closing"]


def database(name):
    client = pymongo.MongoClient(os.environ["DROPGATE_TEST_MONGODB_URI"], serverSelectionTimeoutMS=10_000)
    return client[name]


def s3():
    return boto3.client(
        "s3", endpoint_url=os.environ["DROPGATE_TEST_S3_ENDPOINT"], region_name="us-east-1",
        aws_access_key_id=os.environ["DROPGATE_TEST_S3_ACCESS_KEY"],
        aws_secret_access_key=os.environ["DROPGATE_TEST_S3_SECRET_KEY"],
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 5}))


def container(name):
    account = BlobServiceClient(
        os.environ["DROPGATE_TEST_AZURE_ENDPOINT"], credential={
            "account_name": os.environ["DROPGATE_TEST_AZURE_ACCOUNT"],
            "account_key": os.environ["DROPGATE_TEST_AZURE_KEY"]})
    return account.get_container_client(name)


def broker(method, path, body=None):
    """A call of RabbitMQ's management API; what is not there is None."""
    user, password = os.environ["DROPGATE_TEST_RABBITMQ_USER"], os.environ["DROPGATE_TEST_RABBITMQ_PASSWORD"]
    token = base64.b64encode(f"{user}:{password}".encode()).decode()
    request = urllib.request.Request(
        os.environ["DROPGATE_TEST_RABBITMQ_API"] + path, method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"authorization": f"Basic {token}", "content-type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as response:
            return json.loads(response.read() or b"null")
    except urllib.error.HTTPError as error:
        if error.code == 404 and method in ("DELETE", "GET"):
            return None
        raise


def make_virtual_host(name):
    broker("PUT", f"/api/vhosts/{quote(name)}")
    user = quote(os.environ["DROPGATE_TEST_RABBITMQ_USER"])
    broker("PUT", f"/api/permissions/{quote(name)}/{user}", {"configure": ".*", "write": ".*", "read": ".*"})


def vault():
    return hvac.Client(os.environ["DROPGATE_TEST_VAULT_ADDR"], token=os.environ["DROPGATE_TEST_VAULT_TOKEN"])


def prepare(name, ed25519, rsa):
    keys = {"ed25519": open(ed25519).read(), "rsa": open(rsa).read()}
    vault().secrets.kv.v2.create_or_update_secret(f"{name}/hostkeys", keys)
    make_virtual_host(name)
    container(name).create_container()
    s3().create_bucket(Bucket=name)


def sas(name):
    """What an account key would not give: Dropgate's own are for https only, and Azurite is behind a relay that ends TLS."""
    return generate_container_sas(
        os.environ["DROPGATE_TEST_AZURE_ACCOUNT"], name, os.environ["DROPGATE_TEST_AZURE_KEY"], permission="rcwdl",
        expiry=datetime.now(timezone.utc) + timedelta(hours=1), protocol="https,http")


def wipe(name):
    broker("DELETE", f"/api/vhosts/{quote(name)}")
    make_virtual_host(name)


def remove(name):
    broker("DELETE", f"/api/vhosts/{quote(name)}")
    try:
        container(name).delete_container()
    except ResourceNotFoundError:
        pass
    bucket = s3()
    for page in bucket.get_paginator("list_objects_v2").paginate(Bucket=name):
        for found in page.get("Contents", []):
            bucket.delete_object(Bucket=name, Key=found["Key"])
    bucket.delete_bucket(Bucket=name)
    database(name).client.drop_database(name)
    secrets = vault().secrets.kv.v2
    accounts = secrets.list_secrets(f"{name}/accounts")["data"]["keys"]
    for path in [f"{name}/hostkeys", *(f"{name}/accounts/{account}" for account in accounts)]:
        secrets.delete_metadata_and_all_versions(path)


def stored(pieces):
    digest, size = hashlib.sha256(), 0
    for piece in pieces:
        digest.update(piece)
        size += len(piece)
    return {"size": size, "sha256": digest.hexdigest()}


def archived(name):
    """Every event that the archive queue holds, in its order; they stay there."""
    address = urlsplit(os.environ["DROPGATE_TEST_AMQP_URI"])
    parameters = pika.ConnectionParameters(
        address.hostname, address.port, name, pika.PlainCredentials(address.username, address.password))
    connection = pika.BlockingConnection(parameters)
    channel = connection.channel()
    events = []
    while True:
        method, properties, body = channel.basic_get("dropgate.events.archive", auto_ack=False)
        if method is None:
            break
        event = json.loads(body)
        assert properties.message_id == event["id"], (properties.message_id, event["id"])
        events.append(event)
    # Closing gives everything back unread.
    connection.close()
    return events


def plain(value):
    """BSON as JSON; a 64-bit number that is kept as a decimal is a number again."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    if isinstance(value, Decimal128):
        return int(value.to_decimal())
    return value


def rest(name, wiped, seconds):
    db = database(name)
    give_up = time.monotonic() + float(seconds)
    while True:
        left = under_way(db, name, wiped == "true")
        if not any(left.values()) or time.monotonic() > give_up:
            return left
        # Often enough for a test that takes minutes, and no load that would keep what it waits for from happening.
        time.sleep(1)


def under_way(db, name, wiped):
    """How much is not done yet. Asked for in ways that indexes answer: a test waits here while others work."""
    def count(collection, condition):
        return sum(1 for _ in db[collection].find(condition, {"_id": 1}))

    left = {
        "in_flight": count("uploads", {"record.state": {"$in": IN_FLIGHT}}),
        "unplaced": sum(count(c, {"unplaced": {"$exists": True}})
                        for c in ("uploads", "directories", "accounts", "pending")),
        "outbox": len(outbox(db)),
        "unpublished": 0,
    }
    if not wiped and not any(left.values()):
        # The statistics are some seconds late; what is lost by that is only time.
        archive = broker("GET", f"/api/queues/{quote(name)}/dropgate.events.archive")
        published = 0 if archive is None else archive.get("messages", 0)
        left["unpublished"] = max(0, db.event_log.estimated_document_count() - published)
    return left


def outbox(db):
    # Of a handled entry only a mark is left, without its kind.
    waiting = db.outbox.find({"kind": {"$in": ["job", "event", "supersede"]}}, {"kind": 1, "waits": 1})
    return [entry["kind"] for entry in waiting if entry["kind"] != "job" or not entry["waits"]]


def evidence(name):
    db = database(name)
    versions = []
    for document in db.uploads.find():
        inline = document.get("inline")
        versions.append({
            "doc": plain(document["record"]),
            "inline": None if inline is None else stored([bytes(inline)])})
    bucket, objects = s3(), {}
    for page in bucket.get_paginator("list_objects_v2").paginate(Bucket=name):
        for found in page.get("Contents", []):
            body = bucket.get_object(Bucket=name, Key=found["Key"])["Body"]
            objects[found["Key"]] = stored(body.iter_chunks(1 << 20))
    blobs = {}
    blob_container = container(name)
    for blob in blob_container.list_blobs():
        blobs[blob.name] = stored(blob_container.download_blob(blob.name).chunks())
    return {
        "versions": versions,
        "delivered": objects,
        "blobs": blobs,
        "published": archived(name),
        "logged": [[entry["_id"], plain(entry["record"])] for entry in db.event_log.find().sort("_id", 1)],
        "outbox": outbox(db),
        "audit": [bytes(entry["canonical"]).decode() for entry in db.audit.find().sort("_id", 1)],
    }


def main():
    command, *names = sys.argv[1:]
    does = {"prepare": prepare, "sas": sas, "wipe": wipe, "remove": remove, "rest": rest, "evidence": evidence}[command]
    json.dump(does(*names), sys.stdout)


main()
