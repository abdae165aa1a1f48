"""What tests with a real browser share: Chromium, an app that is served, and a person who is signed in."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from werkzeug.serving import make_server

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# For each window Chromium keeps two pages ready that drop down from its address bar, which costs more than ours do. The
# last list counts, so those of Playwright's own that a test could meet stand here again.
_WITHOUT = (
    "WebUIOmniboxPopup", "WebUIOmniboxAimPopup", "AimEnabled", "HttpsUpgrades", "LensOverlay", "MediaRouter",
    "NetworkTimeServiceQuerying", "OptimizationHints", "PaintHolding", "PreconnectToSearch",
    "ThirdPartyStoragePartitioning",
)  # fmt: skip
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
    f"--disable-features={','.join(_WITHOUT)}",
]  # fmt: skip


@contextmanager
def opened_browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@contextmanager
def served(app: Any) -> Iterator[str]:
    """Serve an app on a port of its own; the address."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    # Requests in flight end before the store is closed under them.
    server.daemon_threads = False  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def session_cookie(app: Any, reviewer_id: int, language: str = "en") -> dict[str, str]:
    """The cookie of somebody who is signed in; add an ``url`` to it."""
    person = app.extensions["labeler"].store.people.get(reviewer_id)
    content = {"reviewer": person["id"], "epoch": person["epoch"], "language": language, "_permanent": True}
    value = str(app.session_interface.get_signing_serializer(app).dumps(content))
    return {"name": app.config["SESSION_COOKIE_NAME"], "value": value}
