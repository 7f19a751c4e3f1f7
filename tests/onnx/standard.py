"""The tests of the ONNX standard in the `onnx` package: node, simple, PyTorch converted and operators.

    python standard.py FOLDER

writes the sets `node`, `simple`, `pytorch-converted` and `pytorch-operator` (see case_file.py). The
expected outputs are those of the standard. Each case has the result of ONNX Runtime, by the comparison of
the standard's suite.
"""

import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner

from case_file import Case, element_types, isolated, run, session, write_set

KINDS = ["node", "simple", "pytorch-converted", "pytorch-operator"]


def main(folder):
    # Warnings of the suite's arithmetic on infinities.
    warnings.filterwarnings("ignore", category=RuntimeWarning)
    for kind in KINDS:
        cases = [case for test in load_model_tests(kind=kind) if (case := read(test))]
        cases.sort(key=lambda case: case.name)
        found = isolated(lambda number: onnxruntime_does(cases[number]), len(cases))  # noqa: B023
        for case, result in zip(cases, found, strict=True):
            case.onnxruntime, case.why, case.others = result or ("crashed", "", [])
        write_set(folder, kind, cases)
        right = sum(case.onnxruntime == "correct" for case in cases)
        print(f"{kind}: {len(cases)} tests, {right} of them correct in ONNX Runtime")


def read(test):
    if test.model is not None:
        model, sets = test.model, test.data_sets
    else:
        folder = Path(test.model_dir)
        model = onnx.load(folder / "model.onnx")
        sets = [
            [
                [
                    read_value(data / f"{what}_{n}.pb", info.type)
                    for n, info in enumerate(infos)
                    if (data / f"{what}_{n}.pb").exists()
                ]
                for what, infos in [("input", model.graph.input), ("output", model.graph.output)]
            ]
            for data in sorted(folder.glob("test_data_set*"))
        ]
    graph = model.graph
    initialized = {tensor.name for tensor in graph.initializer}
    names = [info.name for info in graph.input if info.name not in initialized]
    runs = [
        (
            dict(zip(names, map(plain, inputs), strict=False)),
            dict(zip([info.name for info in graph.output], map(plain, outputs), strict=False)),
        )
        for inputs, outputs in sets
    ]
    return Case(
        name=test.name,
        model=model.SerializeToString(),
        runs=runs,
        types=element_types([*graph.input, *graph.output]),
        rtol=test.rtol,
        atol=test.atol,
        more={"operators": sorted({operator(node) for node in graph.node})},
    )


def operator(node):
    return f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type


def read_value(path, kind):
    data = path.read_bytes()
    if kind.HasField("sequence_type"):
        return numpy_helper.to_list(onnx.SequenceProto.FromString(data))
    if kind.HasField("optional_type"):
        return numpy_helper.to_optional(onnx.OptionalProto.FromString(data))
    return numpy_helper.to_array(onnx.TensorProto.FromString(data))


def plain(given):
    """Numpy scalars, which ONNX Runtime does not accept, as arrays."""
    if isinstance(given, onnx.TensorProto):
        return numpy_helper.to_array(given)
    return np.asarray(given) if isinstance(given, np.generic) else given


def onnxruntime_does(case):
    """The result of ONNX Runtime, the reason, and its outputs if they are wrong."""
    try:
        loaded = session(case.model)
        outputs = [run(loaded, inputs, case.types) for inputs, _ in case.runs]
    except Exception as error:
        return "refused", first_line(error), []
    try:
        for given, (_, expected) in zip(outputs, case.runs, strict=True):
            compared = list(given.values())[: len(expected)]
            Runner.assert_similar_outputs(list(expected.values()), compared, case.rtol, case.atol)
    except (AssertionError, TypeError, ValueError) as error:
        return "wrong", first_line(error), outputs
    return "correct", "", []


def first_line(error):
    return " ".join(str(error).split())[:300]


if __name__ == "__main__":
    main(sys.argv[1])
