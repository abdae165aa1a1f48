"""The forms that a prompt and its answer can have, for models that were trained in one of them."""

from __future__ import annotations

FULL, SHORT, NONE = "full", "short", "none"
GUIDELINES = (FULL, SHORT, NONE)
"""How much of a task's guidelines a prompt has."""
JSON, PLAIN = "json", "plain"
ANSWERS = (JSON, PLAIN)
"""How an answer is written: as one JSON object, or as the bare label."""
STORED = "stored"
"""The labels by the names that are stored; a language instead of it means their titles in that language."""
