"""A downstream system in Python: hears of delivered files over AMQP, fetches each from S3 and checks it, from the event alone.

    pip install pika boto3
    AMQP_URL=amqp://user:password@host:5672/vhost python consumer.py 'QUEUE' 'PARTNER.#' [COUNT]

It makes a durable queue of its own, binds it to the exchange `dropgate.events`, and acknowledges an event only after the
object it names was fetched and has the SHA-256 that the event tells. Delivery is at least once: an event id that was seen
before is skipped. With COUNT it ends after so many files. S3 is reached with the usual AWS_* variables
(AWS_ENDPOINT_URL for other stores).
"""

import hashlib
import json
import os
import sys
from urllib.parse import unquote, urlsplit

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


def main():
    queue, binding = sys.argv[1:3]
    wanted = int(sys.argv[3]) if len(sys.argv) > 3 else None
    connection = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"]))
    channel = connection.channel()
    channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
    channel.queue_bind(queue, "dropgate.events", binding)
    channel.basic_qos(prefetch_count=16)
    print("bound", flush=True)

    # Kept in memory here; a real system keeps the ids, or the last `sequence` of each partner, with its own data.
    seen = set()
    for method, _properties, body in channel.consume(queue):
        event = json.loads(body)
        if event["type"] == "dropgate.delivery.succeeded.v1" and event["id"] not in seen:
            data = event["data"]
            where = data["destination"]
            sha256, size = fetch(where["uri"])
            if (sha256, size) != (data["sha256"], data["size"]):
                sys.exit(f"{where['uri']} has SHA-256 {sha256} and {size} bytes, event {event['id']} says otherwise")
            seen.add(event["id"])
            print("verified", event["id"], event["sequence"], where["uri"], sha256, flush=True)
        channel.basic_ack(method.delivery_tag)
        if wanted is not None and len(seen) >= wanted:
            break
    connection.close()


main()
