"""An S3 server in a thread of this process, for real clients: moto's."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.request import Request, urlopen

from eval.stores import front

SETTINGS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@contextmanager
def s3_server(bucket: str = "board") -> Iterator[dict[str, str]]:
    """An empty bucket, and the environment of whoever wants to use it; set here meanwhile."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line a request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = SETTINGS | {"AWS_ENDPOINT_URL": f"http://{host}:{port}"}
    before = {name: os.environ.get(name) for name in settings}
    os.environ |= settings
    front._opened.cache_clear()  # another server than the one before
    try:
        # Its objects outlive a server of the same process.
        urlopen(Request(f"{settings['AWS_ENDPOINT_URL']}/moto-api/reset", method="POST")).close()
        boto3.client("s3").create_bucket(Bucket=bucket)
        yield settings
    finally:
        server.stop()
        front._opened.cache_clear()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
