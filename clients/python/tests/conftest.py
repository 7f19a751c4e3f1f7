"""The real host, and both clients behind one interface."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.configuration import set_hypothesis_home_dir

from spinfer import AsyncMLClient, MLClient

REPOSITORY = Path(__file__).resolve().parents[3]
set_hypothesis_home_dir(REPOSITORY / "target/hypothesis")
# The same examples in every run, without a deadline on slow machines.
settings.register_profile(
    "tests",
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("tests")

COMPONENTS = REPOSITORY / "target/components/wasm32-wasip2/component"


def binary() -> Path:
    """The host: SPINFER_BIN, or the binary built in the repository."""
    if "SPINFER_BIN" in os.environ:
        return Path(os.environ["SPINFER_BIN"])
    built = [REPOSITORY / "target" / profile / "spinfer" for profile in ("debug", "release")]
    found = next((path for path in built if path.exists()), None)
    if found is None:
        pytest.fail("no spinfer binary found: run `make up` once, or set SPINFER_BIN")
    return found


class Host:
    """A running `spinfer up` on a manifest."""

    def __init__(self, manifest: Path, state: Path) -> None:
        self._log = (state / "log.txt").open("w+")
        command = [binary(), "up", "--from", manifest, "--listen", "127.0.0.1:0", "--no-admin"]
        self._process = subprocess.Popen(
            [*command, "--state-dir", state],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith("Serving http://"):
            self._process.wait()
            self._log.seek(0)
            pytest.fail(f"spinfer up did not serve; it printed {line!r} and\n{self._log.read()}")
        self.url = line.split()[1].rstrip("/")
        # Further output must not fill the pipe.
        threading.Thread(target=self._process.stdout.read, daemon=True).start()

    def close(self) -> None:
        # SIGTERM would wait for a load balancer.
        self._process.send_signal(signal.SIGINT)
        self._process.wait()
        self._log.close()


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of the example application."""
    running = Host(REPOSITORY / "spin.toml", tmp_path_factory.mktemp("state"))
    yield running.url
    running.close()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Serves a manifest in `tmp_path`; returns the URL."""
    running: list[Host] = []

    def start(text: str) -> str:
        manifest = tmp_path / "spin.toml"
        manifest.write_text(text)
        state = tmp_path / f"state-{len(running)}"
        state.mkdir()
        running.append(Host(manifest, state))
        return running[-1].url

    yield start
    for one in running:
        one.close()


class Blocking:
    """An `AsyncMLClient` with blocking methods, so that one test covers both clients."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._client = AsyncMLClient(*arguments, **settings)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if not inspect.iscoroutinefunction(method):
            return method
        return lambda *given, **named: self._loop.run_until_complete(method(*given, **named))

    def close(self) -> None:
        self._loop.run_until_complete(self._client.close())
        self._loop.close()


Make = Callable[..., Any]


@pytest.fixture(params=["MLClient", "AsyncMLClient"])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Creates clients, of each kind in turn."""
    made: list[Any] = []

    def one(*arguments: Any, **settings: Any) -> Any:
        made.append((MLClient if request.param == "MLClient" else Blocking)(*arguments, **settings))
        return made[-1]

    yield one
    for client in made:
        client.close()


@pytest.fixture
def client(make: Make, host: str) -> Any:
    """A client for the example application."""
    return make(host)


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs this Python with the package in its path."""
    source = str(REPOSITORY / "clients/python/src")
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": source},
        cwd=REPOSITORY / "clients/python",
    )
