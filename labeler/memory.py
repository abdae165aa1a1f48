"""Memory that was freed, given back to the system: the C library of Linux keeps it."""

from __future__ import annotations

import functools
from collections.abc import Callable


def give_back() -> None:
    """Give back what is free, after much was. Takes some milliseconds; does nothing where the library gives it back."""
    trim = _trim()
    if trim is not None:
        trim(0)


@functools.cache
def _trim() -> Callable[[int], int] | None:
    import ctypes

    try:
        return getattr(ctypes.CDLL(None), "malloc_trim", None)
    except (OSError, TypeError):  # on Windows
        return None
