"""MLflow's scoring client, unmodified, against the server at the argument, `host:port`."""

import sys

import numpy as np
import pandas as pd
import requests
from mlflow.pyfunc.scoring_server.client import ScoringServerClient

FIELDS = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
ROWS = np.array([[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]])
SPECIES = ["setosa", "virginica"]


def check(client, data, **more):
    answer = client.invoke(data, **more)
    assert answer.get_predictions()[0].tolist() == SPECIES, answer


host, port = sys.argv[1].split(":")
# At the root, and at the model's path.
for port in [port, f"{port}/v2/models/iris-classifier"]:
    client = ScoringServerClient(host, port)
    client.wait_server_ready()
    assert client.get_version().count(".") == 2, client.get_version()

    frame = pd.DataFrame(ROWS, columns=FIELDS)
    check(client, frame)
    check(client, frame[FIELDS[::-1]].assign(colour=["white", "blue"]), params={"x": 1})
    check(client, ROWS)
    check(client, ROWS.tolist())
    check(client, frame.to_dict(orient="records"))
    try:
        client.invoke(frame.drop(columns="sepal_width"))
        raise AssertionError("a table that lacks a column was served")
    except Exception as error:
        assert "error code 400" in str(error) and "sepal_width" in str(error), error

    # As pandas writes it, with its index.
    csv = requests.post(
        f"{client.url_prefix}/invocations",
        data=frame.to_csv(),
        headers={"content-type": "text/csv"},
    )
    assert csv.json() == {"predictions": SPECIES}, csv.text
