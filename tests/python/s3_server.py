"""An S3 server (moto) on a free port with the bucket `logs`. Prints its address, and exits at the end
of its standard input."""

import sys

import boto3
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
host, port = server.get_host_and_port()
url = f"http://{host}:{port}"
boto3.client(
    "s3",
    endpoint_url=url,
    region_name="us-east-1",
    aws_access_key_id="key",
    aws_secret_access_key="secret",
).create_bucket(Bucket="logs")
print(url, flush=True)
sys.stdin.read()
server.stop()
