"""Findings: rows of an export that the manifest names, by what is to be said of them."""

from __future__ import annotations

from collections import Counter
from typing import Any

from labeler.sentence import N_, Sentence

_MOST_KEYS = 1000
_REASONS = {
    "empty_text": N_("The record has no text"),
    "empty_answer": N_("The annotation has no value"),
    "not_in_schema": N_("The label schema of the task no longer allows the value; label these records again"),
    "too_long": N_("Text and answer together are longer than the limit"),
    "contradicting": N_("Equal texts carry different labels; decide these records again"),
    "duplicate": N_("Equal texts with equal labels occur more than once"),
    "near_contradicting": N_("Near-duplicates carry different labels; look at these records again"),
    "thinned": N_("More near-duplicates of one cluster than were asked for"),
    "capped": N_("More rows of a label than its cap lets into the training set"),
    "contact": N_("The record or its label has contact data (%(contact)s)"),
    "contact_masked": N_("Contact data was masked (%(contact)s)"),
    "contact_label": N_("The label itself has contact data, and masking would change what was approved"),
    "control_tokens": N_(
        "The text spells control tokens of language models; in prompts and answers they are broken up by a character "
        "that is not seen"
    ),
    "no_reasoning": N_("No model wrote down its reasoning before the label, or a person corrected it"),
    "not_all_tasks": N_("Not every task of the answer is approved for the record"),
    "no_plain_answer": N_("The answer cannot be written as a bare label"),
    "no_suggestion": N_("No suggestion was there to compare the decision with"),
    "unread_suggestion": N_("The suggestion could not be read, so it is no answer"),
    "suggestion_not_in_schema": N_("The label schema of the task no longer allows what was suggested"),
    "as_suggested": N_("The label is what was suggested, so there is no worse answer"),
    "same_form": N_("Label and suggestion differ in form alone"),
    "no_order": N_("The ranking puts no answer above another that differs from it"),
    "ranked_rejected": N_("The answers were ranked, but the record is rejected"),
    "between_tokens": N_(
        "A label begins or ends inside a token, and the whole token has its tag; choose other tokens to keep the border"
    ),
    "shared_tokens": N_("Labels overlap, or share a token, which has the tag of the first of them alone"),
    "between_splits": N_(
        "Products or near-duplicates that came later tie these records to records of another split;"
        " they stay out, so that no held-out record has a twin in the training set"
    ),
    "no_share": N_(
        "Earlier exports put these records, or what belongs to them, into a split that has no share"
        " now; give it a share, or split all records again"
    ),
    "written": N_("A model wrote the text (%(model)s), and people decided on its label"),
    "written_held_out": N_(
        "A model wrote the text after records that are held out now; in train it would tell of what is tested"
    ),
    "written_copy": N_("A model wrote the text, and customers wrote the same, or nearly the same"),
    "moved": N_("All records were split again: from %(before)s to %(split)s"),
    "changed": N_("Somebody decided these records again while the export ran; export again to have them"),
}


class Findings:
    """Rows by what is said of them: how many, and the keys of the first thousand."""

    def __init__(self) -> None:
        self._keys: dict[tuple[str, Sentence], list[str]] = {}
        self._counts: Counter[tuple[str, Sentence]] = Counter()

    def add(self, kind: str, key: str, **values: object) -> None:
        """Add a row; ``values`` fill the holes of what is said of its kind."""
        about = kind, Sentence(_REASONS[kind], **values)
        self._counts[about] += 1
        if self._counts[about] <= _MOST_KEYS:
            self._keys.setdefault(about, []).append(key)

    def to_json(self) -> list[dict[str, Any]]:
        return [finding(kind, said, self._counts[kind, said], keys) for (kind, said), keys in self._keys.items()]

    @property
    def total(self) -> int:
        """How many rows were added."""
        return self._counts.total()

    def __str__(self) -> str:
        counted = (Sentence("%(why)s (%(n)s)", why=said, n=f"{n:,}") for (_, said), n in self._counts.items())
        return Sentence.joined(counted)


def finding(kind: str, said: Sentence, count: int, keys: list[str] | None = None) -> dict[str, Any]:
    """Return a finding as the manifest has it; one that is about a whole split has no keys."""
    values = {"said": said.parts()} if said.values else {}
    return {"kind": kind, "message": said, **values, "count": count, "keys": keys or []}
