"""KServe's `InferenceRESTClient`, unmodified, against the server at the argument, `host:port`."""

import asyncio
import sys

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

MODEL = "iris-classifier"
URL = f"http://{sys.argv[1]}"
ROWS = np.array([[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]], dtype=np.float32)


def request(binary, **more):
    features = InferInput("features", list(ROWS.shape), "FP32")
    features.set_data_from_numpy(ROWS, binary_data=binary)
    return InferRequest(model_name=MODEL, infer_inputs=[features], **more)


async def version_2():
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    assert await client.is_server_live(URL) and await client.is_server_ready(URL)
    assert await client.is_model_ready(URL, MODEL)
    assert not await client.is_model_ready(URL, "wine")
    answers = []
    for binary in [True, False]:
        for more in [
            {"request_id": "request 7"},
            {"request_id": "request 7", "parameters": {"binary_data_output": True}},
        ]:
            response = await client.infer(URL, request(binary, **more), model_name=MODEL)
            assert response.model_name == MODEL and response.id == "request 7", response
            label, probabilities = (output.as_numpy() for output in response.outputs)
            assert label.dtype == np.int64 and label.tolist() == [0, 2], label
            answers.append(probabilities)
    assert all((answer == answers[0]).all() for answer in answers), answers

    wanted = [RequestedOutput("probabilities", parameters={"binary_data": True})]
    response = await client.infer(URL, request(True, request_outputs=wanted), model_name=MODEL)
    assert [output.name for output in response.outputs] == ["probabilities"], response
    assert (response.outputs[0].as_numpy() == answers[0]).all()

    try:
        await client.infer(URL, {"inputs": []}, model_name=MODEL)
        raise AssertionError("a request without its input was served")
    except httpx.HTTPStatusError as error:
        assert error.response.status_code == 400 and 'input "features": missing' in str(error), error
    await client.close()


async def version_1():
    client = InferenceRESTClient(RESTConfig(protocol="v1"))
    assert await client.is_model_ready(URL, MODEL)
    answer = await client.infer(URL, {"instances": ROWS.tolist()}, model_name=MODEL)
    assert [one["prediction"] for one in answer["predictions"]] == ["setosa", "virginica"], answer
    try:
        await client.infer(URL, {"instances": [[1, 2, 3]]}, model_name=MODEL)
        raise AssertionError("a row of three features was served")
    except httpx.HTTPStatusError as error:
        assert "instances[0]: expected 4 numbers" in str(error), error
    await client.close()


asyncio.run(version_2())
asyncio.run(version_1())
