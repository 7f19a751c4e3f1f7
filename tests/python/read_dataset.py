"""Reads the dataset that `spinfer log export --to` wrote, with pandas, pyarrow and DuckDB.

Arguments: the folder, or the bucket and prefix on the S3 server at the second argument. Prints JSON: the
rows of each table and reader, with the bits of floating-point numbers, and the uploads that are not
complete.
"""

import json
import struct
import sys
import tempfile
from datetime import datetime
from pathlib import Path

import boto3
import duckdb
import pandas
import pyarrow.dataset
import pyarrow.fs


def exact(value):
    """A value as JSON that differs for any two values."""
    if value is None or value is pandas.NaT:
        return None
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bool) or type(value).__name__ == "bool":
        return bool(value)
    if isinstance(value, str):
        return value
    if isinstance(value, float) or type(value).__name__.startswith("float"):
        return "bits " + struct.pack(">d", value).hex() if value == value else None
    return f"integer {int(value)}"


def rows(table):
    """The rows of a table of columns, in the order of their ids."""
    names = sorted(table)
    listed = [dict(zip(names, row)) for row in zip(*(map(exact, table[name]) for name in names))]
    return sorted(listed, key=lambda row: (row.get("id") or row["prediction_id"], row["row"]))


def download(client, bucket, prefix, folder):
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for of in page.get("Contents", []):
            path = Path(folder, of["Key"])
            path.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(bucket, of["Key"], str(path))


def read(filesystem, root, local):
    """The rows of each table by reader. `local` is a folder with the same objects."""
    result = {}
    tables = {"feedback": "feedback"}
    for model in sorted(Path(local, "predictions").iterdir()):
        tables[model.name] = f"predictions/{model.name}"
    for name, folder in tables.items():
        if not Path(local, folder).exists():
            continue
        dataset = pyarrow.dataset.dataset(
            f"{root}/{folder}", filesystem=filesystem, format="parquet", partitioning="hive"
        )
        by_pandas = pandas.read_parquet(Path(local, folder))
        query = "SELECT * FROM read_parquet(?, hive_partitioning = true, hive_types_autocast = false)"
        by_duckdb = duckdb.execute(query, [f"{local}/{folder}/**/*.parquet"])
        columns = [column[0] for column in by_duckdb.description]
        values = list(zip(*by_duckdb.fetchall()))
        partitions = {"model", "version", "day"}
        readers = {
            "pyarrow": dataset.to_table().to_pydict(),
            "pandas": {column: by_pandas[column].tolist() for column in by_pandas},
            "duckdb": dict(zip(columns, values)),
        }
        result[name] = {
            reader: rows({name: of for name, of in table.items() if name not in partitions})
            for reader, table in readers.items()
        }
    # The partitions of the whole dataset, decoded.
    query = f"SELECT DISTINCT model, version, day FROM read_parquet('{local}/predictions/**/*.parquet', \
        hive_partitioning = true, hive_types_autocast = false, union_by_name = true) ORDER BY ALL"
    result["partitions"] = duckdb.execute(query).fetchall()
    return result


duckdb.execute("SET TimeZone = 'UTC'")
if len(sys.argv) == 2:
    root = sys.argv[1]
    result = read(pyarrow.fs.LocalFileSystem(), root, root)
    result["uploads"] = 0
else:
    bucket, _, prefix = sys.argv[1].partition("/")
    endpoint = sys.argv[2]
    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret"}
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys)
    store = pyarrow.fs.S3FileSystem(
        access_key="key", secret_key="secret", endpoint_override=endpoint, region="us-east-1"
    )
    with tempfile.TemporaryDirectory() as folder:
        download(client, bucket, prefix, folder)
        result = read(store, sys.argv[1], str(Path(folder, prefix)))
    result["uploads"] = len(client.list_multipart_uploads(Bucket=bucket).get("Uploads", []))
json.dump(result, sys.stdout)
