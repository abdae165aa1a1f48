"""The words of the page that the code knows by another name, in the page's language.

``N_`` marks a text for translation without translating it: the catalogue is made from these marks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flask import current_app, g, has_app_context
from flask_babel import get_locale, get_translations

from labeler.prompts import titled
from labeler.prompts.styles import STYLES
from labeler.sentence import N_, recalled
from labeler.settings import TABLES, Setting


def _(text: str, /, **values: Any) -> str:
    """Return a text in the language of the request, whose catalogue is looked up once.

    Flask-Babel looks it up for each text, which is a third of what it costs to render a record.
    """
    catalogue = g.get("catalogue")
    if catalogue is None:
        catalogue = g.catalogue = get_translations()
    said = str(catalogue.ugettext(text))
    return said % values if values else said


ACTS = {
    "approve": N_("Approve the suggestions"), "label": N_("Give a label"), "reject": N_("Reject"),
    "reopen": N_("Put back to pending"), "tag": N_("Add a tag"), "untag": N_("Take off a tag"),
}  # fmt: skip
EVENTS = {
    "account added": N_("Account added"),
    "account changed": N_("Account changed"),
    "member changed": N_("Member of a project changed"),
    "signed in": N_("Signed in"),
    "sign-in failed": N_("Sign-in failed"),
    "account linked": N_("Account linked to the company's"),
    "link made": N_("One-time link made"),
    "link used": N_("Signed in by a one-time link"),
    "password changed": N_("Password changed"),
    "project created": N_("Project made"),
    "project renamed": N_("Project renamed"),
    "project archived": N_("Project archived"),
    "project brought back": N_("Project brought back"),
    "project removed": N_("Project removed"),
    "import removed": N_("Import removed"),
    "record removed": N_("Record removed"),
    "a person's data erased": N_("A person's data erased"),
    "settings changed": N_("Settings of a project changed"),
    "task settings changed": N_("Settings of a task changed"),
    "labels changed": N_("Labels of a task changed"),
    "instance settings changed": N_("Settings of the instance changed"),
    "run cancelled": N_("Run cancelled"),
    "run resumed": N_("Run resumed"),
    "exported": N_("Exported"),
    "test set thawed": N_("Frozen test set thawed"),
    "training begun": N_("Training begun"),
}
"""What people did beside labeling."""
LABELING = {
    "approved": N_("Approved"), "rejected": N_("Rejected"), "skipped": N_("Skipped"), "undone": N_("Undone"),
    "voted": N_("Answered with others"), "noted": N_("Note written"), "note closed": N_("Note closed"),
    "imported": N_("Imported"),
}  # fmt: skip
"""What was done to a record at the desk or by an import."""
WORDS = {
    # States of records, runs and imports
    "pending": N_("Pending"),
    "approved": N_("Approved"),
    "rejected": N_("Rejected"),
    "disputed": N_("Disputed"),
    "queued": N_("Queued"),
    "running": N_("Running"),
    "paused": N_("Paused"),
    "cancelled": N_("Cancelled"),
    "finished": N_("Finished"),
    "removed": N_("Removed"),
    "failed": N_("Failed"),
    "withdrawn": N_("Taken back"),
    # How an annotation came to be
    "accepted": N_("Accepted as suggested"),
    "corrected": N_("Corrected"),
    "scratch": N_("Labeled from scratch"),
    "imported": N_("Imported"),
    "bulk": N_("Many at once"),
    "doing": N_("Going on"),
    "done": N_("Finished"),
    "undoing": N_("Being undone"),
    "undone": N_("Undone"),
    "act begun": N_("Act on many records begun"),
    "act done": N_("Act on many records done"),
    "act undone": N_("Act on many records undone"),
    # States of a batch
    "filling": N_("Being filled"),
    "sent": N_("Sent"),
    "ended": N_("Ended"),
    # Roles
    "reviewer": N_("Reviewer"),
    "adjudicator": N_("Adjudicator"),
    "observer": N_("Observer"),
    "admin": N_("Admin"),
    **EVENTS,
    **LABELING,
    # Queue orders
    "order.oldest": N_("Oldest first"),
    "order.score": N_("Lowest score first"),
    "order.disagreement": N_("Second opinion disagrees first"),
    "order.random": N_("Random order"),
    "order.similar": N_("Similar to a text"),
    "order.disputed": N_("To be settled"),
    "reviewers_may.runs": N_("start runs and replays"),
    "reviewers_may.exports": N_("export"),
    "reviewers_may.numbers": N_("see agreement and the other numbers"),
    # Retrievers
    "retriever.balanced": N_("Balanced: the nearest of each label in turn"),
    "retriever.similar": N_("Similar: the nearest examples"),
    "retriever.mmr": N_("MMR: near the record, far from each other"),
    "retriever.diverse": N_("Diverse: one of each cluster"),
    "retriever.fixed": N_("Fixed: the pinned records"),
    "retriever.random": N_("Random"),
    "retriever.none": N_("None: zero-shot"),
    # Delimiters
    "delimiter.tab": N_("Tab"),
    "delimiter.none": N_("None: one column"),
    # Backends
    "openai": N_("OpenAI-compatible server"),
    "nearest": N_("Vote of the nearest examples (free)"),
    "ensemble": N_("Ensemble: learns from the approved labels (free)"),
    "probe": N_("Probe: the ensemble's model of the vectors alone (free)"),
    "transformers": N_("Model on this computer"),
    "classifier": N_("Trained classifier"),
    # What texts are compared by
    "embedder.auto": N_("the best that is installed"),
    "embedder.lexical": N_("by words and letters"),
    "embedder.e5": N_("by meaning (e5)"),
    "embedder.sentence-transformers": N_("by meaning (sentence-transformers)"),
    # Units
    "record": N_("Each review"),
    "group": N_("All reviews of a product"),
    # What is known of a product
    "product.reviews": N_("Reviews of it"),
    "product.shown": N_("Shown here"),
    # Choices of settings; the name of the setting stands before those that mean something else elsewhere
    "mode.direct": N_("Direct: ask the model about every record"),
    "mode.cascade": N_("Cascade: try the cheapest step first"),
    "answering.auto": N_("Automatic: scored where possible"),
    "answering.scored": N_("Scored: the likeliest of the labels"),
    "answering.generated": N_("Generated: the model writes the answer"),
    "quantization.auto": N_("Automatic: 4 bits on a GPU, else none"),
    "quantization.nf4": N_("NF4: 4 bits"),
    "quantization.int8": N_("INT8: 8 bits"),
    "quantization.none": N_("None: the weights as they are"),
    "device.auto": N_("Automatic: a GPU if there is one"),
    "device.cuda": N_("NVIDIA or AMD GPU (cuda)"),
    "device.mps": N_("Apple GPU (mps)"),
    "device.cpu": N_("Processor (cpu)"),
    "executor.local": N_("Separate calls, several at once"),
    "executor.openai-batch": N_("OpenAI batch: half the price, within a day"),
    "prompt_guidelines.full": N_("Whole"),
    "prompt_guidelines.short": N_("Short"),
    "prompt_guidelines.none": N_("None"),
    "answer_form.json": N_("One JSON object"),
    "answer_form.plain": N_("The bare label"),
    "label_names.stored": N_("As they are stored"),
    "label_names.ko": N_("Korean titles"),
    "label_names.en": N_("English titles"),
    # How a suggestion was made: the parts of its note
    "made.vote": N_("vote"),
    "made.extraction": N_("extraction"),
    "made.probe": N_("probe"),
    "made.ensemble": N_("ensemble"),
    "made.seeds": N_("by the descriptions of the labels: too little is approved yet"),
    "made.scored": N_("labels scored"),
    "made.calibrated": N_("calibrated"),
    "made.stacked": N_("together with the free suggestion"),
    "made.free instead": N_("the free suggestion, since the model adds nothing to it"),
    "made.repaired": N_("answer repaired"),
    "made.joint": N_("asked together with other tasks"),
    "made.self-consistency": N_("majority of several answers"),
    "made.cascade: free": N_("cascade: the free backends agreed"),
    "made.cascade: fixed": N_("cascade: confirmed with fixed examples"),
    "made.cascade: retrieved": N_("cascade: decided with retrieved examples"),
    "made.unconstrained": N_("not bound to the schema"),
    # Flags of a suggestion whose prompt had to be made shorter
    "flag.cut": N_("review cut to fit the model"),
    "flag.fewer examples": N_("fewer examples, to fit the model"),
    # The steps on the way to a suggestion
    "step.reasoning": N_("Reasoning"),
    "step.plan": N_("Plan"),
    "step.points": N_("Points of the review"),
    "step.draft": N_("Draft"),
    "step.check": N_("Check"),
    "step.unreadable": N_("Unreadable answer, asked once more"),
    "step.model": N_("Answer of the model alone"),
    "step.free": N_("Answer of the free backends"),
    "step.fixed": N_("Answer with fixed examples"),
    "step.medoid": N_("The answer most like the others"),
    # What a model of a server takes
    "can.json_schema": N_("Answers that fit a JSON schema"),
    "can.json_object": N_("Answers that are JSON"),
    "can.logprobs": N_("Scores of the labels (log probabilities)"),
    "can.top_logprobs": N_("How many alternatives at most"),
    "can.temperature": N_("Temperature"),
    "can.top_p": N_("Top-p"),
    "can.top_k": N_("Top-k"),
    "can.seed": N_("Seed"),
    "can.stop": N_("Stop texts"),
    "can.max_tokens": N_("Longest answer"),
    "can.max_tokens_name": N_("Its name for the limit of the answer"),
    "can.chat_template": N_("Own chat template"),
    "can.constrained": N_("Answers that are bound to the schema"),
    "can.scored": N_("Scores of the labels"),
    "can.cache": N_("Reuses prompts it has read"),
    "can.context": N_("Context in tokens"),
    "can.slots": N_("Calls it answers at once"),
    "can.usage": N_("Counts tokens"),
    "can.thinks": N_("Thinks before it answers"),
    "can.device": N_("Device"),
    "can.dtype": N_("Number format"),
    # What becomes of a label
    "fate.kept": N_("Stays"),
    "fate.new": N_("New"),
    "fate.renamed": N_("Renamed to"),
    "fate.retired": N_("Retired: offered no more, its records keep it"),
    "fate.gone": N_("Removed; no approval has it"),
    # Languages
    "ko": N_("Korean"),
    "en": N_("English"),
    # Splits
    "preflight.refused": N_("Refused:"),
    "preflight.warned": N_("Look at this:"),
    "preflight.noted": N_("Good to know:"),
    "exports.added": N_("Added"),
    "exports.dropped": N_("Dropped"),
    "exports.changed": N_("Changed"),
    "exports.moved": N_("Moved to another split"),
    "train": N_("Train"),
    "validation": N_("Validation"),
    "test": N_("Test"),
    # What an export asks
    "near_duplicates.keep": N_("Keep all"),
    "near_duplicates.one": N_("One of each group"),
    "contacts.keep": N_("Keep it, and list the records"),
    "contacts.mask": N_("Mask it"),
    "contacts.drop": N_("Leave these records out"),
    "contact.phone": N_("phone number"),
    "contact.email": N_("e-mail address"),
    "contact.resident": N_("resident registration number"),
    "contact.card": N_("payment card"),
    "split_by.product": N_("By product and near-duplicate"),
    "split_by.date": N_("By date: the newest are held out"),
    "split_by.label": N_("By label: each gets its share"),
    # Why calls of a run failed
    "timeout": N_("No answer in time"),
    "rate_limit": N_("Too many requests"),
    "server": N_("Error of the server"),
    "connection": N_("No connection"),
    "away": N_("The server does not respond"),
    "too_long": N_("The prompt is too long"),
    "auth": N_("Key refused"),
    "quota": N_("Quota used up"),
    "model": N_("Model not found"),
    "setup": N_("Not set up"),
    "request": N_("Prompt refused"),
    "no_examples": N_("No approved examples yet"),
    "unanswered": N_("Left out of the batch"),
    "expired": N_("The batch took too long"),
    "no_answer": N_("The nearest examples do not help"),
    "no_vector": N_("No vector yet"),
    # Why an answer is no label
    "parse.not_json": N_("Not JSON"),
    "parse.shape": N_("Not the object asked for"),
    "parse.type": N_("Wrong type of value"),
    "parse.unknown_label": N_("Unknown label"),
    "parse.case": N_("Label written differently"),
    "parse.heading": N_("Category with subcategories"),
    "parse.exclusive": N_("Labels that exclude each other"),
    "parse.count": N_("Too many or too few"),
    "parse.length": N_("Too long or too short"),
    "parse.range": N_("Out of range"),
    "parse.not_verbatim": N_("Phrase not in the text"),
    "parse.overlap": N_("Overlapping phrases"),
    "parse.offset": N_("Wrong place in the text"),
    "parse.unknown_part": N_("Unknown field"),
    "parse.missing_part": N_("Missing field"),
    "parse.empty": N_("Empty"),
    "parse.text": N_("Text that cannot be used"),
    "parse.too_long": N_("Answer too long"),
    "parse.truncated": N_("Cut off"),
    "parse.thinking": N_("Still thinking"),
    "parse.refusal": N_("Refused to answer"),
    "parse.removed": N_("A label that was removed"),
    "parse.elsewhere": N_("No text in the answer"),
    "parse.unchanged": N_("Nothing changed"),
    "parse.quoted": N_("Quotes a review"),
}

SETTINGS = {setting.name: setting for table in TABLES.values() for setting in table}
"""The settings that Labeler has itself; those of plugins come beside them."""


def translated(text: str | list[Any] | None) -> str:
    """Return an error's sentence, or what is kept of one, in the page's language; a strange text stays as it is."""
    sentence = recalled(text)
    return "" if sentence is None else sentence.say(_, _NAMED)


def word(name: str) -> str:
    """Return the page's word for a state, role, order, backend and the like; what a plugin added stays as it is."""
    return str(_(WORDS[name])) if name in WORDS else name


def setting_of(setting: str, value: str) -> str:
    """Return the page's word for one choice of a setting or field: "none" of a retriever is none of a delimiter."""
    if setting == "style" and value in STYLES:
        locale = get_locale()
        return STYLES[value].title.get(locale.language if locale else "ko") or value
    return word(f"{setting}.{value}" if f"{setting}.{value}" in WORDS else value)


def made_words(made: Iterable[str]) -> str:
    """Return in words how a suggestion was made, part by part; a part of a plugin as it is."""
    return " · ".join(word(f"made.{part}") if f"made.{part}" in WORDS else part for part in made)


def step_title(name: str) -> str:
    """Return the title of a step; "sample 2" is numbered."""
    sample = re.fullmatch(r"sample (\d+)", name)
    if sample:
        return str(_("Sample %(n)s", n=sample[1]))
    return word(f"step.{name}") if f"step.{name}" in WORDS else name


def failure_kind(kind: str) -> str:
    """Return in words why an answer is no label; the kind of a plugin's own parser as it is."""
    return word(f"parse.{kind}") if f"parse.{kind}" in WORDS else kind


def setting_title(name: str) -> str:
    known = known_settings()
    return _said(known[name].title) if name in known and known[name].title else name


def known_settings() -> Mapping[str, Setting]:
    """Return the settings by name, with those of the plugins of the instance."""
    opened = current_app.extensions.get("labeler") if has_app_context() else None
    return SETTINGS if opened is None else {**opened.plugins.settings, **SETTINGS}


def _said(text: str | Mapping[str, str]) -> str:
    """Return a text of the catalogue, or one of a plugin, in the page's language."""
    if isinstance(text, str):
        return str(_(text)) if text else ""
    locale = get_locale()
    return titled(text, locale.language if locale else "ko")


def setting_named(names: str) -> str:
    """Return what an error calls a setting: its title on the page, and the name that the command line knows.

    Several are separated by commas.
    """
    return ", ".join(
        str(_("%(title)s (%(name)s)", title=setting_title(name), name=name)) if setting_title(name) != name else name
        for name in names.split(", ")
    )


def setting_help(name: str) -> str:
    known = known_settings()
    return _said(known[name].help) if name in known else ""


def contact_named(kind: str) -> str:
    """Return the page's word for a kind of contact data."""
    return word(f"contact.{kind}")


_NAMED: Mapping[str, Callable[[str], str]] = {
    "setting": setting_named, "backend": word, "split": word, "before": word, "contact": contact_named,
}  # fmt: skip
"""Holes of sentences that hold a name of the code, and what the page calls it."""
