"""NVIDIA's `tritonclient[http]`, unmodified, with strings, against the server at the argument, `host:port`."""

import sys

import numpy as np
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

MODEL = "language-identifier"
TEXTS = ["Where is the station, please?", "Où est la gare, s'il vous plaît ?", "Где здесь вокзал?"]
LANGUAGES = [b"en", b"fr", b"ru"]


def text(elements, binary):
    tensor = InferInput("text", [len(elements)], "BYTES")
    return [tensor.set_data_from_numpy(np.array(elements, dtype=np.object_), binary_data=binary)]


with InferenceServerClient(sys.argv[1]) as client:
    assert client.is_model_ready(MODEL)
    model = client.get_model_metadata(MODEL)
    assert model["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}], model
    assert model["outputs"][2] == {"name": "language", "datatype": "BYTES", "shape": [-1]}, model

    # Binary and JSON, in requests and responses; as str and as bytes.
    answers = []
    for binary_in in [True, False]:
        for binary_out in [True, False]:
            names = ["language", "probabilities"]
            wanted = [InferRequestedOutput(name, binary_data=binary_out) for name in names]
            result = client.infer(MODEL, text(TEXTS, binary_in), outputs=wanted)
            languages = result.as_numpy("language")
            # The client does not decode strings in JSON.
            languages = [s if isinstance(s, bytes) else s.encode() for s in languages]
            assert languages == LANGUAGES, languages
            answers.append(result.as_numpy("probabilities"))
    assert all((answer == answers[0]).all() for answer in answers), answers
    encoded = client.infer(MODEL, text([text.encode() for text in TEXTS], True))
    assert encoded.as_numpy("language").tolist() == LANGUAGES, encoded.get_response()

    for tensor, message in [
        (text([b"\xff"], True), "text 0: expected UTF-8"),
        (text([""], True), "text 0: expected letters"),
    ]:
        try:
            client.infer(MODEL, tensor)
            raise AssertionError(f"served, instead of the error {message!r}")
        except InferenceServerException as error:
            assert error.status() == "400" and message in error.message(), error
