"""The notebook of the documents, from a file of reviews to a judged model, runs as it stands, at a tiny size."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_training import base as base

NOTEBOOK = Path(__file__).parent.parent / "docs" / "walkthrough.ipynb"
pytestmark = pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="needs the extra train")


def test_the_notebook_runs_from_reviews_to_a_judged_adapter(base: Path, tmp_path: Path) -> None:
    """Each cell after the other, in a process of its own; the table names the adapter."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    script = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    (tmp_path / "notebook.py").write_text(script, encoding="utf-8")
    given = {
        "NOTEBOOK_FOLDER": str(tmp_path / "walk"), "NOTEBOOK_MODEL": str(base), "NOTEBOOK_STEPS": "2",
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(tmp_path / "notebook.py")], env=os.environ | given, text=True, capture_output=True,
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "transformers sentiment-lora" in done.stdout.split("Labels in test")[-1]


def test_the_notebook_holds_no_output(base: Path) -> None:
    """What it prints depends on who runs it."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells if "outputs" in cell)
