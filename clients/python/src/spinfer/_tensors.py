"""The Open Inference Protocol: tensors as JSON, or as binary data after the JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from math import prod
from typing import TYPE_CHECKING, Any, TypeAlias

from spinfer._predict import of_headers
from spinfer._rows import plain, to_json
from spinfer._wire import JSON, ModelCall, Response, invalid, json_object

if TYPE_CHECKING:
    import numpy.typing as npt

    Array: TypeAlias = npt.NDArray[Any]
else:
    Array = Any

# Header with the length of the JSON before binary tensors, in bytes.
JSON_LENGTH = "inference-header-content-length"
# Maximum digits of that length.
MAX_DIGITS = 18
# NumPy dtypes, little-endian, by datatype. NumPy has no BF16; BYTES has no fixed size.
DTYPES = {
    "BOOL": "|b1",
    "UINT8": "|u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "|i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
DATATYPES = {dtype[1:]: datatype for datatype, dtype in DTYPES.items()}
# Added before truncation to BF16: half a step less one, for rounding to nearest, ties to even.
BF16_ROUND = 0x7FFF


class Inference(dict[str, Array]):
    """Outputs by name: a dict, with metadata of the response as attributes.

    Attributes:
        model: name of the model.
        version: version of the model.
        id: ``id`` of the request, if it has one.
        prediction_id: id for feedback; only if the prediction is logged.
        experiment: experiment of the request.
        variant: variant that served the request.
    """

    model: str = ""
    version: str | None = None
    id: str | None = None
    prediction_id: str | None = None
    experiment: str | None = None
    variant: str | None = None


def check_numpy() -> None:
    """Raises an error if NumPy, an optional dependency, is missing."""
    try:
        import numpy  # noqa: F401
    except ImportError:
        raise ImportError("infer() needs NumPy: pip install 'spinfer[numpy]'") from None


def infer_call(
    inputs: Mapping[str, Any],
    *,
    outputs: Iterable[str] | None = None,
    datatypes: Mapping[str, str] | None = None,
    binary: bool = True,
    id: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    version: str | int | None = None,
    headers: Mapping[str, str] | None = None,
) -> ModelCall[Inference]:
    """The call that runs an inference."""
    check_numpy()
    datatypes = datatypes or {}
    if isinstance(outputs, str):
        raise TypeError(f"outputs: expected a list of names, got the string {outputs!r}")
    unknown = sorted(set(datatypes) - set(inputs))
    if unknown:
        raise ValueError(
            f"datatypes: {unknown[0]!r} is not an input; the inputs are {sorted(inputs)}"
        )
    document: dict[str, Any] = {}
    if id is not None:
        document["id"] = id
    if parameters or binary:
        document["parameters"] = {
            **plain(parameters or {}),
            **({"binary_data_output": True} if binary else {}),
        }
    listed, tensors = [], []
    for name, values in inputs.items():
        try:
            array, datatype = typed(values, datatypes.get(name))
        except (TypeError, ValueError) as problem:
            raise type(problem)(f"input {name!r}: {problem}") from None
        entry: dict[str, Any] = {
            "name": name,
            "shape": list(array.shape),
            "datatype": datatype,
        }
        if binary:
            tensors.append(to_bytes(array, datatype))
            entry["parameters"] = {"binary_data_size": len(tensors[-1])}
        else:
            entry["data"] = to_elements(array, datatype)
        listed.append(entry)
    document["inputs"] = listed
    if outputs is not None:
        document["outputs"] = [{"name": name} for name in outputs]
    body = to_json(document)
    sent = {**(headers or {}), "content-type": JSON}
    if binary:
        sent |= {"content-type": "application/octet-stream", JSON_LENGTH: str(len(body))}
    return ModelCall("infer", version, sent, inference, b"".join([body, *tensors]))


def typed(values: Any, datatype: str | None) -> tuple[Array, str]:
    """The array of an input and its datatype, converted to ``datatype`` if given.

    The array of BF16 is float32.
    """
    import numpy as np

    array = np.asarray(values)
    if datatype is None:
        datatype = datatype_of(array)
    if datatype == "BF16":
        return array.astype(np.float32), datatype
    if datatype == "BYTES":
        return array.astype(object) if array.dtype.kind in "SU" else array, datatype
    if datatype not in DTYPES:
        raise ValueError(
            f"unknown datatype {datatype!r}; expected one of "
            f"{', '.join([*DTYPES, 'BF16', 'BYTES'])}"
        )
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{array.dtype} cannot be sent as {datatype}")
    return array.astype(DTYPES[datatype], copy=False), datatype


def datatype_of(array: Array) -> str:
    """The protocol's datatype of an array."""
    if array.dtype.kind in "SUO":
        return "BYTES"
    # From the package ml_dtypes.
    if array.dtype.name == "bfloat16":
        return "BF16"
    datatype = DATATYPES.get(array.dtype.newbyteorder("<").str[1:])
    if datatype is None:
        raise TypeError(f"the protocol has no datatype for {array.dtype}")
    return datatype


def to_bytes(array: Array, datatype: str) -> bytes:
    """Elements as binary data: row-major, little-endian."""
    if datatype == "BYTES":
        encoded = (encode(element) for element in array.ravel())
        return b"".join(chain.from_iterable((len(e).to_bytes(4, "little"), e) for e in encoded))
    if datatype == "BF16":
        return to_bf16(array).tobytes()
    return array.tobytes()


def to_elements(array: Array, datatype: str) -> list[Any]:
    """Elements as a flat list for the JSON."""
    if datatype == "BYTES":
        return [encode(element).decode() for element in array.ravel()]
    if datatype == "BF16":
        return from_bf16(to_bf16(array)).ravel().tolist()
    return array.ravel().tolist()


def encode(element: Any) -> bytes:
    """An element of BYTES as bytes."""
    if isinstance(element, str):
        return element.encode()
    if isinstance(element, (bytes, bytearray)):
        return bytes(element)
    raise TypeError(f"expected strings or bytes, got {type(element).__name__}")


def to_bf16(array: Array) -> Array:
    """FP32 as the bits of BF16, rounded to nearest, ties to even."""
    import numpy as np

    bits = np.ascontiguousarray(array, "<f4").view("<u4")
    rounded = (bits.astype(np.uint64) + BF16_ROUND + ((bits >> 16) & 1)) >> 16
    # Rounding must not turn NaN into infinity or a number.
    return np.where(np.isnan(bits.view("<f4")), (bits >> 16) | 0x40, rounded).astype("<u2")


def from_bf16(bits: Array) -> Array:
    """The bits of BF16 as FP32, which is exact."""
    return (bits.astype("<u4") << 16).view("<f4")


def inference(response: Response) -> Inference:
    """Reads the response to an inference."""
    length = response.headers.get(JSON_LENGTH)
    tensors = memoryview(b"")
    if length is not None:
        digits = length.isascii() and length.isdigit() and len(length) <= MAX_DIGITS
        if not digits or int(length) > len(response.body):
            invalid(
                response, f"{JSON_LENGTH} is {length}, but the body has {len(response.body)} bytes"
            )
        tensors = memoryview(response.body)[int(length) :]
        response = Response(
            response.status, response.headers, response.body[: int(length)], response.url
        )
    body = json_object(response)
    listed = body.get("outputs")
    if not isinstance(listed, list):
        invalid(response, 'the body has no "outputs"')
    result = Inference()
    for output in listed:
        try:
            name, array, size = tensor(output, tensors)
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as problem:
            invalid(response, f"output {len(result)}: {problem!r}")
        result[name] = array
        tensors = tensors[size:]
    if len(tensors) > 0:
        invalid(response, f"{len(tensors)} bytes of binary data belong to no output")
    result.model = str(body.get("model_name", ""))
    result.version, result.id = body.get("model_version"), body.get("id")
    for key, value in of_headers(response).items():
        setattr(result, key, value)
    return result


def tensor(output: Mapping[str, Any], behind: memoryview) -> tuple[str, Array, int]:
    """Name and array of an output, and the length of its binary data in bytes."""
    name, datatype, shape = output["name"], output["datatype"], output["shape"]
    if not all(isinstance(axis, int) and axis >= 0 for axis in shape):
        raise ValueError(f"shape {shape}")
    size = (output.get("parameters") or {}).get("binary_data_size")
    if size is None:
        return name, from_elements(output["data"], datatype, shape), 0
    if not isinstance(size, int) or not 0 <= size <= len(behind):
        raise ValueError(f"binary_data_size is {size}, but {len(behind)} bytes are left")
    return name, from_bytes(behind[:size], datatype, shape), size


def from_bytes(data: memoryview, datatype: str, shape: list[int]) -> Array:
    """The array of an output in binary data; a copy that the caller may modify."""
    import numpy as np

    if datatype == "BYTES":
        return objects(split_bytes(data), shape)
    if datatype == "BF16":
        return from_bf16(np.frombuffer(data, "<u2")).reshape(shape)
    return np.frombuffer(data, DTYPES[datatype]).reshape(shape).copy()


def from_elements(data: list[Any], datatype: str, shape: list[int]) -> Array:
    """The array of an output in the JSON, flat or nested."""
    import numpy as np

    if datatype == "BYTES":
        flat = data
        for _ in shape[1:]:
            if flat and isinstance(flat[0], list):
                flat = list(chain.from_iterable(flat))
        return objects([encode(element) for element in flat], shape)
    return np.asarray(data, "<f4" if datatype == "BF16" else DTYPES[datatype]).reshape(shape)


def objects(elements: list[bytes], shape: list[int]) -> Array:
    """Elements of BYTES as an array of `bytes`."""
    import numpy as np

    if len(elements) != prod(shape):
        raise ValueError(f"{len(elements)} elements do not fit the shape {shape}")
    array = np.empty(len(elements), object)
    array[:] = elements
    return array.reshape(shape)


def split_bytes(data: memoryview) -> list[bytes]:
    """Elements of BYTES: each has a length of four bytes, then its data."""
    elements: list[bytes] = []
    at = 0
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "little")
        if at + 4 > len(data) or end > len(data):
            raise ValueError(f"element {len(elements)} exceeds the tensor")
        elements.append(bytes(data[at + 4 : end]))
        at = end
    return elements
