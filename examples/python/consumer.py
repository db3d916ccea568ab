"""A downstream system in Python: hears of delivered files over AMQP, fetches each from S3 and checks it, from the event alone.

    pip install pika boto3
    AMQP_URL=amqp://user:password@host:5672/vhost python consumer.py 'QUEUE' 'PARTNER.#' [COUNT]

It makes a durable queue of its own, binds it to the exchange `dropgate.events`, and acknowledges an event only after the
object it names was fetched and has the SHA-256 that the event tells. Delivery is at least once: an event id that was seen
before is skipped. With COUNT it ends after so many files. S3 is reached with the usual AWS_* variables
(AWS_ENDPOINT_URL for other stores).

What happened before the queue was bound, or while it was lost, comes from the event log over HTTP:

    DROPGATE_API=http://ops.example.com:8080 DROPGATE_TOKEN=dgt_... DROPGATE_AFTER=0 ...

reads everything after that position once the queue is bound, and goes on with the queue then. Nothing is between the two: an
event is in the log before it is published. The token needs the scope events:read, and shows one partner if it is bound to one.
"""

import hashlib
import json
import os
import sys
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

import boto3
import pika
from botocore.config import Config


def fetch(uri):
    """SHA-256 and size of the object at s3://BUCKET/KEY, read in pieces."""
    where = urlsplit(uri)
    bucket, key = where.netloc, unquote(where.path.removeprefix("/"))
    s3 = boto3.client("s3", config=Config(s3={"addressing_style": "path"}))
    digest, size = hashlib.sha256(), 0
    for piece in s3.get_object(Bucket=bucket, Key=key)["Body"].iter_chunks(1 << 20):
        digest.update(piece)
        size += len(piece)
    return digest.hexdigest(), size


def logged(api, token, after):
    """Each event of the log after a position, with its own."""
    while True:
        request = Request(f"{api}/api/v1/events?after={after}", headers={"Authorization": f"Bearer {token}"})
        with urlopen(request, timeout=60) as answer:
            page = json.load(answer)
        if not page["events"]:
            return
        for line in page["events"]:
            yield line["position"], line["event"]
        after = page["next"]


def take(event, seen):
    """Fetches and checks the file of an event, unless there is none or it was seen before."""
    if event["type"] != "dropgate.delivery.succeeded.v1" or event["id"] in seen:
        return
    data = event["data"]
    where = data["destination"]
    sha256, size = fetch(where["uri"])
    if (sha256, size) != (data["sha256"], data["size"]):
        sys.exit(f"{where['uri']} has SHA-256 {sha256} and {size} bytes, event {event['id']} says otherwise")
    seen.add(event["id"])
    print("verified", event["id"], event["sequence"], where["uri"], sha256, flush=True)


def main():
    queue, binding = sys.argv[1:3]
    wanted = int(sys.argv[3]) if len(sys.argv) > 3 else None
    connection = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"]))
    channel = connection.channel()
    channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
    channel.queue_bind(queue, "dropgate.events", binding)
    channel.basic_qos(prefetch_count=16)
    print("bound", flush=True)

    # Kept in memory here; a real system keeps the ids, or the last position of the log, with its own data.
    seen = set()
    api = os.environ.get("DROPGATE_API")
    if api:
        position = int(os.environ.get("DROPGATE_AFTER", "0"))
        for position, event in logged(api, os.environ["DROPGATE_TOKEN"], position):
            take(event, seen)
            # Sends the heartbeats that the broker waits for.
            connection.process_data_events(time_limit=0)
        print("caught-up", position, flush=True)
    for method, _properties, body in channel.consume(queue):
        take(json.loads(body), seen)
        channel.basic_ack(method.delivery_tag)
        if wanted is not None and len(seen) >= wanted:
            break
    connection.close()


main()
