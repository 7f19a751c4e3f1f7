"""Reads the metrics at the argument, `host:port`, with Prometheus' parsers, and prints the families of each
format as JSON."""

import json
import sys
import urllib.request

from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client import parser as prometheus

FORMATS = {
    "text/plain": ("text/plain; version=0.0.4; charset=utf-8", prometheus),
    "application/openmetrics-text": (
        "application/openmetrics-text; version=1.0.0; charset=utf-8",
        openmetrics,
    ),
}


def read(accept, content_type, parser):
    request = urllib.request.Request(f"http://{sys.argv[1]}/metrics", headers={"accept": accept})
    with urllib.request.urlopen(request) as answer:
        assert answer.headers["content-type"] == content_type, answer.headers["content-type"]
        text = answer.read().decode()
    return [
        {
            "name": family.name,
            "type": family.type,
            "unit": family.unit,
            "help": family.documentation,
            "samples": [[s.name, s.labels, s.value] for s in family.samples],
        }
        for family in parser.text_string_to_metric_families(text)
    ]


print(json.dumps([read(accept, *format) for accept, format in FORMATS.items()]))
