"""What a server can and how a run on it goes: ``python benchmarks/servers.py --url URL --model M [--records 12]``.

For servers that others wrote (vLLM, LiteLLM, llama.cpp, ...), run by hand: start the server, then this. It tests the
backend as ``labeler backends --test`` does, runs over Korean reviews, and over a name of a model that the server has
not. What it prints is a row of the table "tried with" in docs/backends.md. The key is that of OPENAI_API_KEY, if any.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from common import fill

from labeler.instance import Instance
from labeler.prelabel import runs
from labeler.sentence import recalled
from labeler.worker import Worker


def tried(instance: Instance, project: dict[str, Any], ids: list[int], **settings: Any) -> dict[str, Any]:
    """Run over some records and return the run, with the seconds that it took."""
    chosen = {"backend": "openai", "k": 0, **settings}
    run_id = runs.start(instance.store, project["id"], "sentiment", ids, chosen)
    started = time.perf_counter()
    Worker(instance).see_through(run_id)
    return instance.store.ledger.run(run_id) | {"took": time.perf_counter() - started}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--records", type=int, default=12)
    parser.add_argument("--timeout", type=float, default=300.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Instance(Path(folder)) as instance:
        instance.change_settings(
            {"openai_base_url": options.url, "openai_model": options.model, "timeout_seconds": options.timeout}
        )
        project_id = instance.create_project("shop", "ko", {"tasks": ["sentiment"]})
        project = instance.store.projects.get(project_id)
        ids = fill(instance.store, project_id, options.records)
        task = instance.project_task(project, "sentiment")
        backend: Any = instance.suggester(project, task, {"backend": "openai"}).backend
        found = backend.check()
        print(found["message"])
        print("can:", ", ".join(f"{name} {value}" for name, value in sorted(found["capabilities"].items())))
        place = ("openai", options.url, options.model)
        instance.store.write(lambda tx: instance.store.models.record(tx, *place, found["capabilities"]))
        run = tried(instance, project, ids)
        print(
            f"run: {run['state']}, {run['done']} of {run['total']} done, {run['parse_failures']} unreadable, "
            f"{run['failed']} failed, {run['calls']} calls, {run['repeats']} repeats, {run['took']:.0f} s"
        )
        for failure in instance.store.ledger.failures(run["id"]):
            print(f"  {failure['n']} x {failure['kind']}: {recalled(failure['message'])}")
        wrong = tried(instance, project, ids[:3], model_id="no-such-model")
        print(f"another model: {wrong['state']}, {wrong['calls']} calls: {recalled(wrong['message'])}")


if __name__ == "__main__":
    main()
