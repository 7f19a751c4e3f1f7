"""The package: types, doctests, contents of the wheel, imports."""

from __future__ import annotations

import inspect
import shutil
import zipfile
from pathlib import Path

import pytest
from conftest import REPOSITORY, run_python

from spinfer import AsyncMLClient, MLClient

PACKAGE = REPOSITORY / "clients/python"
MYPY = ("--strict", "--cache-dir", str(REPOSITORY / "target/mypy"))


def surface(client: type) -> dict[str, str]:
    """Public methods and their signatures."""
    methods = inspect.getmembers(client, inspect.isfunction)
    return {name: str(inspect.signature(of)) for name, of in methods if not name.startswith("_")}


def test_both_clients_have_the_same_methods() -> None:
    assert surface(MLClient) == surface(AsyncMLClient)
    for name in surface(AsyncMLClient):
        assert inspect.iscoroutinefunction(getattr(AsyncMLClient, name)), name
    assert str(inspect.signature(MLClient)) == str(inspect.signature(AsyncMLClient))


def test_types() -> None:
    checked = run_python("-m", "mypy", *MYPY)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_examples_in_docstrings() -> None:
    ran = run_python(
        "-m", "pytest", "-q", "--doctest-modules", "src/spinfer", "-p", "no:cacheprovider"
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_user_code_is_type_checked(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from spinfer import MLClient\n"
        "client = MLClient(timeout=1.5, retries=0)\n"
        "reveal_type(client.predict('iris', [1.0])['probability'])\n"
        "reveal_type(client.infer('iris', {}))\n"
        "client.predict('iris')\n"
        "MLClient(timeuot=1)\n"
    )
    checked = run_python("-m", "mypy", *MYPY, str(script))
    for line in (
        '3: note: Revealed type is "float"',
        '4: note: Revealed type is "spinfer._tensors.Inference"',
        '5: error: Missing positional argument "features"',
        '6: error: Unexpected keyword argument "timeuot"',
    ):
        assert line in checked.stdout, checked.stdout


def test_wheel_has_all_modules_and_depends_on_httpx_only(tmp_path: Path) -> None:
    # A copy: setuptools builds in the source folder.
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns("__pycache__", "build", "tests", "*.egg-info", ".*")
    shutil.copytree(PACKAGE, source, ignore=ignored)
    built = run_python(
        *("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"),
        *("--wheel-dir", str(tmp_path), str(source)),
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("spinfer-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith("METADATA"))
        lines = archive.read(metadata).decode().splitlines()
    modules = {
        f"spinfer/{path.relative_to(PACKAGE / 'src/spinfer')}"
        for path in (PACKAGE / "src/spinfer").rglob("*.py")
    }
    assert modules | {"spinfer/py.typed"} <= set(names)
    needed = [
        line for line in lines if line.startswith("Requires-Dist:") and "extra ==" not in line
    ]
    assert needed == ["Requires-Dist: httpx>=0.27"]


@pytest.mark.parametrize(
    "code, message",
    [
        (
            "import spinfer; spinfer.MLClient().infer('m', {'x': [1]})",
            "pip install 'spinfer[numpy]'",
        ),
        ("import spinfer.model_trainer", "pip install 'spinfer[train]'"),
        ("import spinfer.mlflow", "pip install 'spinfer[mlflow]'"),
        ("import spinfer.dataset", "pip install 'spinfer[dataset]'"),
        ("import spinfer; spinfer.MLClient(http2=True)", "pip install httpx[http2]"),
    ],
)
def test_missing_extra_is_named(code: str, message: str) -> None:
    # A module that is None in sys.modules cannot be imported.
    without = "import sys; sys.modules.update(dict.fromkeys(['numpy', 'mlflow', 'h2', 'pyarrow']))"
    ran = run_python("-c", f"{without}\n{code}")
    assert ran.returncode == 1 and message in ran.stderr, ran.stderr


def test_predict_works_without_numpy() -> None:
    code = (
        "import sys; sys.modules['numpy'] = None; import spinfer; "
        "from spinfer._predict import predict_call; print(predict_call([1.5, 2]).body)"
    )
    ran = run_python("-c", code)
    assert ran.stdout.strip() == """b'{"features":[1.5,2]}'""", ran.stderr
