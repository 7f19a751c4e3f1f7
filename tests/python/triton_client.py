"""NVIDIA's `tritonclient[http]`, unmodified, against the server at the argument, `host:port`."""

import sys

import numpy as np
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

MODEL = "iris-classifier"
ROWS = np.array([[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3], [5.9, 3.0, 4.2, 1.5]], dtype=np.float32)
LABELS = [0, 2, 1]


def features(rows, binary):
    tensor = InferInput("features", list(rows.shape), "FP32")
    return [tensor.set_data_from_numpy(rows, binary_data=binary)]


def check(result):
    label, probabilities = result.as_numpy("label"), result.as_numpy("probabilities")
    assert label.dtype == np.int64 and label.tolist() == LABELS, label
    assert probabilities.dtype == np.float32 and probabilities.shape == (3, 3), probabilities
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5), probabilities
    assert probabilities.argmax(axis=1).tolist() == LABELS, probabilities
    return probabilities


def refused(client, inputs, message, **more):
    try:
        client.infer(MODEL, inputs, **more)
    except InferenceServerException as error:
        assert error.status() == "400" and message in error.message(), error
    else:
        raise AssertionError(f"served, instead of the error {message!r}")


with InferenceServerClient(sys.argv[1]) as client:
    assert client.is_server_live() and client.is_server_ready()
    server = client.get_server_metadata()
    assert server["name"] == "spinfer" and "binary_tensor_data" in server["extensions"], server
    assert client.is_model_ready(MODEL) and client.is_model_ready(MODEL, "1")
    assert not client.is_model_ready("wine") and not client.is_model_ready(MODEL, "9")
    for version in ["", "1"]:
        model = client.get_model_metadata(MODEL, version)
        assert model["name"] == MODEL and model["versions"] == ["1"], model
        assert model["inputs"] == [{"name": "features", "datatype": "FP32", "shape": [-1, 4]}], model

    # Binary and JSON, in requests and responses: the same numbers, bit for bit.
    outputs = ["label", "probabilities"]
    answers = []
    for binary_in in [True, False]:
        answers.append(check(client.infer(MODEL, features(ROWS, binary_in))))
        for binary_out in [True, False]:
            wanted = [InferRequestedOutput(name, binary_data=binary_out) for name in outputs]
            answers.append(check(client.infer(MODEL, features(ROWS, binary_in), outputs=wanted)))
    assert all((answer == answers[0]).all() for answer in answers), answers

    # One output in each form, in the requested order, with an id, a version and parameters.
    wanted = [InferRequestedOutput("probabilities"), InferRequestedOutput("label", binary_data=False)]
    result = client.infer(
        MODEL, features(ROWS, True), "1", wanted, "request 7", priority=1, parameters={"x": 1.5}
    )
    assert (check(result) == answers[0]).all()
    response = result.get_response()
    assert response["id"] == "request 7" and response["model_version"] == "1", response
    assert [output["name"] for output in response["outputs"]] == outputs[::-1], response
    check(client.async_infer(MODEL, features(ROWS, True)).get_result())

    # Compressed requests, responses and both; the response for 1,000 rows is long enough.
    many = np.tile(ROWS, (1000, 1))
    for algorithm in ["gzip", "deflate"]:
        for binary in [True, False]:
            both = {"request_compression_algorithm": algorithm, "response_compression_algorithm": algorithm}
            for which in [[0], [1], [0, 1]]:
                more = {key: both[key] for key in np.array(list(both))[which]}
                assert (check(client.infer(MODEL, features(ROWS, binary), **more)) == answers[0]).all()
                result = client.infer(MODEL, features(many, binary), **more)
                assert result.as_numpy("label").tolist() == LABELS * 1000

    index = client.get_model_repository_index()
    assert index == [{"name": MODEL, "version": "1", "state": "READY", "reason": ""}], index

    refused(client, features(ROWS[:, :3].copy(), True), "expected shape [-1, 4], got [3, 3]")
    refused(client, features(ROWS, True), "score", outputs=[InferRequestedOutput("score")])
    text = InferInput("features", [1, 4], "BYTES")
    text.set_data_from_numpy(np.array([[b"5.1", b"3.5", b"1.4", b"0.2"]], dtype=np.object_))
    refused(client, [text], 'expected datatype FP32, got "BYTES"')
    classes = [InferRequestedOutput("probabilities", class_count=2)]
    refused(client, features(ROWS, True), "`classification` is not supported", outputs=classes)
