"""How answers travel: static files under an address that changes with them, and what is text compressed.

A page holds secrets (the CSRF token, reviews) beside words that come from its address, and from the length of many
compressed answers such a secret could be guessed (BREACH). Other sites cannot ask for pages in somebody's name, as the
cookie is SameSite=Lax, and the token is signed anew each second; above that, the length of each answer is blurred by
a few bytes at random.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import secrets
from collections.abc import Iterable
from pathlib import Path

from flask import Flask, Response, request

_TEXTS = {"text/html", "text/css", "text/javascript", "text/plain", "application/json", "image/svg+xml"}
# Less than this travels in one piece anyway.
_SHORT = 1400
_FOR_GOOD = "public, max-age=31536000, immutable"
_QUICK, _SMALL = 4, 9
_BLUR = 64


def static_address(folder: str, more: Iterable[Path] = ()) -> str:
    """Return the address of the static files: it has a hash of all of them in it, and of ``more`` files.

    So a browser may keep each for good, and scripts that import one another by relative names are of one version.
    """
    digest = hashlib.sha256()
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file() and path.suffix not in (".py", ".pyc"):
            _add(digest, path.relative_to(folder).as_posix(), path.read_bytes())
    for path in sorted(more):
        _add(digest, path.name, path.read_bytes())
    return f"/static/{digest.hexdigest()[:12]}"


def _add(digest: hashlib._Hash, name: str, content: bytes) -> None:
    digest.update(f"{name} {len(content)} ".encode() + content)


def install(app: Flask) -> None:
    """Have static files kept by browsers, and texts compressed for those who take them so."""
    files: dict[str, bytes] = {}

    @app.after_request
    def deliver(response: Response) -> Response:
        static = request.endpoint == "static"
        if static and response.status_code in (200, 304):
            response.headers["Cache-Control"] = _FOR_GOOD
        # Whole texts only: files other than the static ones may be large, and are sent as they are read.
        if response.status_code != 200 or response.mimetype not in _TEXTS or not (static or response.is_sequence):
            return response
        response.vary.add("Accept-Encoding")
        if request.accept_encodings["gzip"] <= 0 or (response.content_length or 0) < _SHORT:
            return response
        if static:
            response.direct_passthrough = False
            # What was compressed before is not read again; the file is open all the same.
            response.call_on_close(getattr(response.response, "close", lambda: None))
            if request.path not in files:
                files[request.path] = _compressed(response.get_data(), _SMALL)
            response.set_etag(response.get_etag()[0] or "", weak=True)
            response.set_data(files[request.path])
        else:
            response.set_data(_compressed(response.get_data(), _QUICK, "~" * secrets.randbelow(_BLUR)))
        response.content_encoding = "gzip"
        return response


def _compressed(data: bytes, level: int, name: str = "") -> bytes:
    """Return the data as gzip; its header holds a name of any length, which nobody reads."""
    buffer = io.BytesIO()
    with gzip.GzipFile(name, "wb", level, buffer, mtime=0) as stream:
        stream.write(data)
    return buffer.getvalue()
