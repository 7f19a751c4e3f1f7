"""A real MLflow tracking server with models in it, for tests/e2e/mlflow.rs.

Its data are in the folder of the argument. It prints one line of JSON with its URI, its models and the
predictions of ONNX Runtime, and exits at the end of standard input.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

folder = Path(sys.argv[1])
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
# Avoids half a dozen processes for jobs that no test uses.
os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
os.environ["GIT_PYTHON_REFRESH"] = "quiet"
for name in [name for name in os.environ if name.startswith("MLFLOW_TRACKING")]:
    del os.environ[name]


def stop(server):
    # Its workers are in its process group, and their data can be lost.
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def start():
    """The process of the server, and its address. Another process may take the port first: it retries."""
    for _ in range(5):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
        command += ["--artifacts-destination", str(folder / "artifacts")]
        log = open(folder / "server.log", "ab")
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        address = f"http://127.0.0.1:{port}"
        try:
            while server.poll() is None:
                try:
                    urllib.request.urlopen(f"{address}/health", timeout=1)
                    return server, address
                except OSError:
                    time.sleep(0.1)
        except BaseException:
            stop(server)
            raise
    raise SystemExit((folder / "server.log").read_text())


def log_models(address):
    import mlflow
    import numpy as np
    import onnx
    import onnxruntime
    import pandas as pd
    from mlflow.models import infer_signature
    from skl2onnx import to_onnx
    from sklearn.datasets import load_iris
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    mlflow.set_tracking_uri(address)
    client = mlflow.MlflowClient()
    features, species = load_iris(return_X_y=True)
    features = features.astype(np.float32)
    rows = features[::15] + np.float32(0.02)
    columns = ["sepal_length", "sepal_width", "petal_length", "petal_width"]
    frame = pd.DataFrame(features, columns=columns)
    cases = []

    def convert(model):
        return to_onnx(model, features[:1], options={"zipmap": False}, target_opset={"": 17, "ai.onnx.ml": 1})

    def case(graph, source, name, version, **more):
        session = onnxruntime.InferenceSession(graph.SerializeToString())
        labels, probabilities = session.run(None, {session.get_inputs()[0].name: rows})
        expected = [
            {"prediction": int(label), "probability": float(max(row))}
            for label, row in zip(labels, probabilities)
        ]
        cases.append({"source": source, "name": name, "version": version, "expected": expected, **more})

    # Registered, with an alias, a metric that is NaN, and tags.
    mlflow.set_experiment("iris")
    models = [LogisticRegression(max_iter=1000), RandomForestClassifier(20, random_state=0)]
    for number, model in enumerate(models, 1):
        graph = convert(model.fit(features, species))
        with mlflow.start_run() as run:
            mlflow.log_metrics({"val/accuracy": model.score(features, species), "loss": float("nan")})
            mlflow.set_tags({"team": "botany", "release/notes": "one\n\"two\""})
            signature = infer_signature(frame, model.predict(features))
            info = mlflow.onnx.log_model(
                graph, name="model", registered_model_name="iris", signature=signature
            )
        case(graph, f"models:/iris/{number}", "iris", number, fields=columns, run=run.info.run_id)
    client.set_registered_model_alias("iris", "champion", "1")
    client.set_registered_model_alias("iris", "challenger", "2")
    case(graph, "models:/iris@challenger", "iris", 2, fields=columns, run=run.info.run_id)
    case(graph, "models:/iris/latest", "iris", 2, fields=columns, run=run.info.run_id)
    case(graph, f"models:/{info.model_id}", "model", 1, fields=columns, run=run.info.run_id)
    case(graph, f"runs:/{run.info.run_id}/model", "model", 1, fields=columns, run=run.info.run_id)
    run_of_iris = run.info.run_id

    # With its weights in another file.
    model = MLPClassifier((300,), max_iter=200, random_state=0).fit(features, species)
    graph = convert(model)
    for tensor in graph.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    with mlflow.start_run() as run:
        copy = onnx.ModelProto.FromString(graph.SerializeToString())
        info = mlflow.onnx.log_model(copy, name="net", registered_model_name="net")
    files = [file.path for file in client.list_logged_model_artifacts(info.model_id)]
    assert any(file.endswith(".data") for file in files), files
    case(graph, "models:/net/1", "net", 1, inlined=True)
    uri = client.get_model_version_download_uri("net", "1")
    assert uri.startswith("mlflow-artifacts:/"), uri
    case(graph, uri, None, 1, inlined=True)

    # In a folder, and in the artifacts of a run, where MLflow 2 stores a model.
    saved = folder / "saved net"
    mlflow.onnx.save_model(onnx.ModelProto.FromString(graph.SerializeToString()), saved)
    case(graph, str(saved), "saved-net", 1, inlined=True)
    with mlflow.start_run() as run:
        mlflow.log_artifacts(str(saved), "classic/net")
    case(graph, f"runs:/{run.info.run_id}/classic/net", "net", 1, inlined=True, run=run.info.run_id)

    # In a store that clients read directly instead of through the server.
    experiment = client.create_experiment("direct", artifact_location=(folder / "direct").as_uri())
    with mlflow.start_run(experiment_id=experiment) as run:
        info = mlflow.onnx.log_model(
            onnx.ModelProto.FromString(graph.SerializeToString()), name="direct", registered_model_name="direct"
        )
        mlflow.log_artifacts(str(saved), "classic")
    case(graph, "models:/direct/1", "direct", 1, inlined=True)
    case(graph, f"models:/{info.model_id}", "direct", 1, inlined=True)
    case(graph, f"runs:/{run.info.run_id}/classic", "classic", 1, inlined=True)

    # Without the ONNX flavour.
    with mlflow.start_run():
        mlflow.sklearn.log_model(
            model, name="plain", registered_model_name="plain", serialization_format="pickle"
        )

    return {"uri": address, "rows": rows.tolist(), "cases": cases, "run": run_of_iris}


# A test that is terminated also terminates the server.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
server, address = start()
try:
    # MLflow's output must not go to standard output.
    out, sys.stdout = sys.stdout, sys.stderr
    said = log_models(address)
    print(json.dumps(said), file=out, flush=True)
    sys.stdin.read()
finally:
    stop(server)
