"""llama.cpp's own server in a process of its own, from the wheel ``xllamacpp``, with SmolLM2-135M-Instruct.

As a process; it ends with its parent, and says its port when it answers::

    python -m tests.llama_server --port 0 --context 4096 MODEL.gguf
"""

from __future__ import annotations

import argparse
import importlib.util
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers import ROOT, kill, until
from local_models import smollm2

_START = 120.0


class LlamaServer:
    """A server on 127.0.0.1 that can be killed and started again at the same address."""

    def __init__(self, context: int = 4096) -> None:
        self.model, self.context = smollm2(), context
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.base_url = f"http://127.0.0.1:{self.port}/v1"
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        words = [sys.executable, str(Path(__file__)), "--port", str(self.port), "--context", str(self.context)]
        self.process = subprocess.Popen(
            [*words, str(self.model)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT / "tests",
        )
        until(self.answers, _START)

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5) as found:
                return bool(found.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def kill(self) -> None:
        """End it as a crash would."""
        if self.process is not None:
            if self.process.stdin is not None:
                self.process.stdin.close()
            kill(self.process)
            self.process = None


@contextmanager
def llama_server(context: int = 4096) -> Iterator[LlamaServer]:
    """Run a server, or skip the test with the reason why it cannot."""
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("xllamacpp is not installed (labeler-rag[dev])")
    server = LlamaServer(context)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description="llama.cpp's server, until stdin ends.")
    parser.add_argument("model")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--context", type=int, default=4096)
    options = parser.parse_args()
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.n_ctx, params.n_parallel, params.port, params.warmup = options.context, 1, options.port, False
    # One thread: two wait for one another in a loop, and on a busy machine that takes ten times as long.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    # A pipe reaches its end when the process that holds the other end is gone, even by kill -9.
    sys.stdin.read()


if __name__ == "__main__":
    main()
