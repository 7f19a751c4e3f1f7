"""Encoding of tensors, without a server."""

from __future__ import annotations

import json
import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as of_numpy

from spinfer import InvalidResponse
from spinfer._tensors import DTYPES, JSON_LENGTH, from_bf16, infer_call, inference, to_bf16
from spinfer._wire import Response

DTYPE = st.sampled_from([np.dtype(dtype) for dtype in DTYPES.values()])
SHAPE = of_numpy.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=3)
ANY_ARRAY = DTYPE.flatmap(lambda dtype: of_numpy.arrays(dtype, SHAPE))
FINITE = DTYPE.flatmap(
    lambda dtype: of_numpy.arrays(
        dtype,
        SHAPE,
        elements=of_numpy.from_dtype(dtype, allow_nan=False, allow_infinity=False),
    )
)


def echoed(request: Any) -> Response:
    """The response of a model that returns its inputs."""
    length = int(request.headers.get(JSON_LENGTH, len(request.body)))
    document = json.loads(request.body[:length])
    body = json.dumps({"model_name": "m", "outputs": document["inputs"]}).encode()
    headers = {JSON_LENGTH: str(len(body))} if JSON_LENGTH in request.headers else {}
    return Response(200, headers, body + request.body[length:])


def round_trip(array: Any, binary: bool, **more: Any) -> Any:
    call = infer_call({"x": array, "y": array}, binary=binary, **more).of("m")
    result = call.parse(echoed(call.request))
    assert list(result) == ["x", "y"]
    np.testing.assert_array_equal(result["x"], result["y"])
    return result["x"]


@given(ANY_ARRAY)
def test_binary_tensors_round_trip_exactly(array: Any) -> None:
    back = round_trip(array, True)
    assert back.dtype == array.dtype and back.shape == array.shape
    assert back.tobytes() == array.tobytes()


@given(FINITE)
def test_json_tensors_round_trip(array: Any) -> None:
    back = round_trip(array, False)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


@given(of_numpy.arrays(object, SHAPE, elements=st.text() | st.binary()), st.booleans())
def test_strings_and_bytes(array: Any, binary: bool) -> None:
    flat = [one.encode() if isinstance(one, str) else one for one in array.ravel()]
    if not binary and any(not is_text(one) for one in flat):
        with pytest.raises(ValueError):
            round_trip(array, False)
        return
    back = round_trip(array, binary)
    assert back.shape == array.shape and back.ravel().tolist() == flat


def is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


@given(st.floats(width=32))
def test_bf16_is_rounded_as_ml_dtypes_does(number: float) -> None:
    array = np.array([number], np.float32)
    with np.errstate(all="ignore"):
        expected = array.astype(ml_dtypes.bfloat16).astype(np.float32)
    back = from_bf16(to_bf16(array))
    assert math.isnan(back[0]) == math.isnan(number)
    np.testing.assert_array_equal(back, expected)


@pytest.mark.parametrize("binary", [True, False])
def test_datatypes(binary: bool) -> None:
    wide = np.array([1.5, 2.5])
    assert round_trip(wide, binary, datatypes={"x": "FP16", "y": "FP16"}).dtype == np.float16
    bf16 = round_trip(wide, binary, datatypes={"x": "BF16", "y": "BF16"})
    assert bf16.dtype == np.float32 and bf16.tolist() == [1.5, 2.5]
    assert round_trip(wide.astype(ml_dtypes.bfloat16), binary).tolist() == [1.5, 2.5]
    assert round_trip(wide.astype(">f4"), binary).tolist() == [1.5, 2.5]
    assert round_trip([[True, False]], binary).dtype == np.bool_


def test_invalid_inputs_are_errors() -> None:
    for inputs, more, error, message in [
        ({"x": np.array([1j])}, {}, TypeError, "input 'x': .*complex128"),
        ({"x": [object()]}, {}, TypeError, "expected strings or bytes, got object"),
        ({"x": ["a"]}, {"datatypes": {"x": "FP32"}}, TypeError, "cannot be sent as FP32"),
        ({"x": [1.0]}, {"datatypes": {"x": "FLOAT"}}, ValueError, "unknown datatype 'FLOAT'"),
        ({"x": [1.0]}, {"datatypes": {"z": "FP32"}}, ValueError, "'z' is not an input"),
        ({"x": [1.0]}, {"outputs": "label"}, TypeError, "expected a list of names"),
        ({"x": [math.nan]}, {"binary": False}, ValueError, r"inputs\[0\].data\[0\] is nan"),
    ]:
        with pytest.raises(error, match=message):
            infer_call(inputs, **more)  # type: ignore[arg-type]


def output(**changes: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2], **changes}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"outputs": {}},
        {"outputs": [1]},
        {"outputs": [output(shape=[3])]},
        {"outputs": [output(shape=[-2])]},
        {"outputs": [output(shape="2")]},
        {"outputs": [output(shape=[2**70])]},
        {"outputs": [output(datatype="FP31")]},
        {"outputs": [output(data=["a", "b"])]},
        {"outputs": [output(data=None)]},
        {"outputs": [output(datatype="BYTES", data=["a"])]},
        {"outputs": [output(datatype="BYTES", data=[1, 2])]},
        {"outputs": [output(parameters={"binary_data_size": 8})]},
        {"outputs": [output(parameters={"binary_data_size": -1})]},
        {"outputs": [output(parameters=[1])]},
        {"outputs": [output(datatype="UINT8", data=[1, 256])]},
    ],
)
def test_invalid_response_is_an_error(body: Any) -> None:
    with pytest.raises(InvalidResponse, match="invalid response"):
        inference(Response(200, {}, json.dumps(body).encode()))


@given(st.binary(max_size=40), st.sampled_from([*DTYPES, "BYTES", "BF16"]), st.integers(-1, 40))
def test_any_binary_data_is_a_tensor_or_invalid_response(
    behind: bytes, datatype: str, size: int
) -> None:
    tensor = output(datatype=datatype, parameters={"binary_data_size": size})
    body = json.dumps({"outputs": [tensor]}).encode()
    for length in (str(len(body)), "-1", "9999", "x"):
        try:
            result = inference(Response(200, {JSON_LENGTH: length}, body + behind))
            assert result["x"].shape == (2,)
        except InvalidResponse:
            pass
