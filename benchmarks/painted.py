"""How long a key press takes until the next record is painted: ``python benchmarks/painted.py [--sizes 1000 20000]``.

``labeler serve`` in a process of its own, and a desk in Chromium (without a window) whose keys are pressed as a person
does: Shift with the digit of a label, which chooses and approves, every 400 ms, so that records are fetched, decisions
stored and words asked for meanwhile. A press counts from when the browser heard of it until after the frame that shows
the next record. Next to it, in the same browser, the least page that does this: a key replaces one text by the next.
The ratio is to that page. ``CPU`` is what the page's own thread worked for one press, all that comes after it included.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import LABELS, started
from desk import make

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from browsers import opened_browser

APART = 400
# The frame of a change is painted after its callbacks; what waits in line behind it runs when it can be seen.
WATCH = """(selector) => {
    const took = (window.took = []);
    let pressed = null;
    addEventListener("keydown", (event) => { if (event.code.startsWith("Digit")) pressed = event.timeStamp; }, true);
    new MutationObserver(() => {
        if (pressed === null) return;
        const from = pressed;
        pressed = null;
        requestAnimationFrame(() => setTimeout(() => took.push(performance.now() - from)));
    }).observe(document.querySelector(selector), { attributes: true, attributeFilter: ["data-record"] });
}"""
BARE = """<!doctype html><div id="desk" data-record="0"></div><p id="text"></p>"""
BARE_KEYS = """() => {
    const [desk, text] = [document.querySelector("#desk"), document.querySelector("#text")];
    addEventListener("keydown", (event) => {
        if (!event.code.startsWith("Digit")) return;
        text.textContent = `review ${desk.dataset.record} `.repeat(20);
        desk.dataset.record = Number(desk.dataset.record) + 1;
    });
}"""


def worked(devtools: Any) -> dict[str, float]:
    """Return the CPU milliseconds of a page's thread so far: in all, in scripts, for styles, for layout."""
    found = {one["name"]: 1000 * one["value"] for one in devtools.send("Performance.getMetrics")["metrics"]}
    return {name: found[f"{name}Duration"] for name in ("Task", "Script", "RecalcStyle", "Layout")}


def press(page: Any, count: int) -> tuple[list[float], dict[str, float]]:
    """Press digits with Shift; return the milliseconds until each next record was painted, and the CPU of a press."""
    devtools = page.context.new_cdp_session(page)
    devtools.send("Performance.setTimeDomain", {"timeDomain": "threadTicks"})
    devtools.send("Performance.enable")
    page.evaluate(WATCH, "#desk")
    before = worked(devtools)
    for n in range(count):
        page.keyboard.press(f"Shift+Digit{n % len(LABELS) + 1}")
        page.wait_for_timeout(APART)
        # A person does not press before the record is there.
        page.wait_for_selector("#desk:not(.is-waiting)", state="attached")
    after = worked(devtools)
    took: list[float] = page.evaluate("window.took")
    assert len(took) > 0.95 * count, f"only {len(took)} of {count} presses led to another record"
    return took, {name: (after[name] - before[name]) / count for name in after}


def p95(took: list[float]) -> float:
    return statistics.quantiles(took, n=20)[-1]


def said(name: str, took: list[float], cpu: dict[str, float]) -> str:
    parts = ", ".join(f"{part} {cpu[part]:.1f}" for part in ("Script", "RecalcStyle", "Layout"))
    times = f"p50 {statistics.median(took):.1f} ms, p95 {p95(took):.1f} ms, most {max(took):.0f} ms of {len(took)}"
    return f"{name}: {times}; CPU {cpu['Task']:.1f} ms a press ({parts})"


def main() -> None:
    parser = argparse.ArgumentParser(description="From a key press to the painted next record.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 20_000])
    parser.add_argument("--presses", type=int, default=200)
    arguments = parser.parse_args()
    with opened_browser() as browser:
        bare = browser.new_page()
        bare.set_content(BARE)
        bare.evaluate(BARE_KEYS)
        least, cpu = press(bare, arguments.presses)
        bare.close()
        print(said("bare page", least, cpu), flush=True)
        for size in arguments.sizes:
            with tempfile.TemporaryDirectory() as name:
                path, people = make(Path(name) / "instance", size)
                with started("-m", "labeler", "serve", "--port", "0", "--instance", f"{name}/instance") as (_, port):
                    address = f"http://127.0.0.1:{port}"
                    context = browser.new_context(viewport={"width": 1280, "height": 800})
                    cookie, value = people[0]["Cookie"].split("=", 1)
                    context.add_cookies([{"name": cookie, "value": value, "url": address}])
                    page = context.new_page()
                    page.goto(address + path.removesuffix("/api/"))
                    page.wait_for_selector("#desk[data-ready]:not(.is-waiting)")
                    took, cpu = press(page, arguments.presses)
                    context.close()
            times = p95(took) / p95(least)
            print(f"{said(f'{size:,} records', took, cpu)}; p95 {times:.1f} times the bare page", flush=True)


if __name__ == "__main__":
    main()
