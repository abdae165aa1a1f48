"""Work in batches that become smaller when memory runs out, instead of a run that dies."""

from __future__ import annotations

import gc
import logging
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from labeler.errors import BackendError

Item = TypeVar("Item")
Result = TypeVar("Result")

# What CUDA, ROCm, MPS and the allocator of the CPU say; each in its own words.
_SAID = re.compile(
    r"out of memory|can'?t allocate memory|not enough memory|cannot allocate memory|_ALLOC_FAILED"
    r"|invalid buffer size|failed to allocate",
    re.IGNORECASE,
)

log = logging.getLogger(__name__)


class OutOfMemory(BackendError):
    """Not even one prompt fits into memory."""


@dataclass
class BatchSize:
    """How many items are worked on at once; what a lack of memory has taught stays for later calls."""

    value: int


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether ``error`` means that memory ran out, on whatever device; needs no torch."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and bool(_SAID.search(str(error)))


def free_memory() -> None:
    """Give back what no tensor uses any more: torch keeps it for itself otherwise."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is None:
        return
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def in_batches(
    items: Sequence[Item],
    size: int | BatchSize,
    work: Callable[[Sequence[Item]], Sequence[Result]],
    release: Callable[[], None] = free_memory,
) -> list[Result]:
    """Return the results of ``work``, called with at most ``size`` items at once, in the order of the items.

    A batch that does not fit into memory is halved and tried again, and so are all after it; a :class:`BatchSize`
    remembers that beyond this call. ``release`` frees memory in between. Raises :class:`OutOfMemory` where a single
    item does not fit; any other error of ``work`` goes through.
    """
    limit = size if isinstance(size, BatchSize) else BatchSize(size)
    results: list[Result] = []
    while len(results) < len(items):
        batch = items[len(results) : len(results) + max(limit.value, 1)]
        said = ""
        try:
            done = work(batch)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            said = str(error).strip().split("\n")[0][:200] or type(error).__name__
        else:
            if len(done) != len(batch):
                raise ValueError(f"{len(done)} results for a batch of {len(batch)}")
            results.extend(done)
            continue
        # Out of the except block: there the traceback still holds every tensor of the batch that failed.
        release()
        if len(batch) == 1:
            raise OutOfMemory(
                "Memory is too small for a single prompt (%(reason)s); show fewer examples, set "
                "quantization to nf4, take a smaller model, or set device to cpu",
                reason=said,
            )
        limit.value = len(batch) // 2
        log.warning("Out of memory with %d prompts at once; going on with %d", len(batch), limit.value)
    return results
