"""The words of the page that the code knows by another name, and the sentences of errors, in the page's language.

``N_`` marks a text for translation without translating it: the catalogue is made from these marks.
"""

from __future__ import annotations

import re

from flask_babel import gettext as _


def N_(text: str) -> str:
    """Mark a text for the catalogue."""
    return text


WORDS = {
    # States of records, runs and imports
    "pending": N_("Pending"),
    "approved": N_("Approved"),
    "rejected": N_("Rejected"),
    "queued": N_("Queued"),
    "running": N_("Running"),
    "paused": N_("Paused"),
    "cancelled": N_("Cancelled"),
    "finished": N_("Finished"),
    "failed": N_("Failed"),
    # How an annotation came to be
    "accepted": N_("Accepted as suggested"),
    "corrected": N_("Corrected"),
    "scratch": N_("Labeled from scratch"),
    "imported": N_("Imported"),
    # Roles
    "reviewer": N_("Reviewer"),
    "adjudicator": N_("Adjudicator"),
    "admin": N_("Admin"),
    # Queue orders
    "oldest": N_("Oldest first"),
    "score": N_("Lowest score first"),
    "disagreement": N_("Most disagreement with the second opinion first"),
    # Retrievers
    "balanced": N_("Balanced: the nearest of each label in turn"),
    "similar": N_("Similar: the nearest examples"),
    "mmr": N_("MMR: near the record, far from each other"),
    "diverse": N_("Diverse: one of each cluster"),
    "fixed": N_("Fixed: the pinned records"),
    "random": N_("Random"),
    "none": N_("None: zero-shot"),
    # Backends
    "openai": N_("OpenAI-compatible server"),
    "nearest": N_("Nearest examples (free)"),
    "probe": N_("Probe: trained on the approved labels (free)"),
    "transformers": N_("Model on this computer"),
    # Units
    "record": N_("Each review"),
    "group": N_("All reviews of a product"),
    # Prompt styles
    "few-shot": N_("Few-shot: with examples"),
    "zero-shot": N_("Zero-shot: without examples"),
    # Languages
    "ko": N_("Korean"),
    "en": N_("English"),
    # Splits
    "train": N_("Train"),
    "validation": N_("Validation"),
    "test": N_("Test"),
    # Why calls of a run failed
    "timeout": N_("No answer in time"),
    "rate_limit": N_("Too many requests"),
    "server": N_("Error of the server"),
    "connection": N_("No connection"),
    "auth": N_("Key refused"),
    "quota": N_("Quota used up"),
    "model": N_("Model not found"),
    "setup": N_("Not set up"),
    "request": N_("Prompt refused"),
    "no_examples": N_("No approved examples yet"),
    "no_answer": N_("The examples say nothing about it"),
    "no_vector": N_("No vector yet"),
}

# Title and explanation of each setting that the pages show.
SETTINGS = {
    "embedder": (N_("Embedder"), N_("Turns texts into vectors, to find similar examples")),
    "embedding_model": (N_("Embedding model"), N_("For sentence-transformers: a model name or a folder")),
    "blind_share": (
        N_("Blind share"),
        N_("The share of records shown without a suggestion, so that agreement can be measured honestly (0 to 1)"),
    ),
    "order": (N_("Queue order"), N_("Which record comes next on the desk")),
    "claim_minutes": (N_("Minutes per record"), N_("How long an opened record stays reserved for a reviewer")),
    "max_share_reviewer": (
        N_("Largest share of one reviewer"),
        N_("How many of the examples in a prompt may come from one reviewer (0 to 1)"),
    ),
    "max_share_group": (
        N_("Largest share of one product"),
        N_("How many of the examples in a prompt may come from one product (0 to 1)"),
    ),
    "refresh": (
        N_("Renew suggestions after approvals"),
        N_("Pending suggestions near the front of the queue are made again when their examples changed"),
    ),
    "refresh_ahead": (N_("Records kept fresh"), N_("How many records from the front of the queue are renewed")),
    "backend": (N_("Backend"), N_("What makes the suggestions")),
    "model_id": (N_("Model"), N_("The name of the model, as the backend knows it")),
    "retriever": (N_("Retriever"), N_("Chooses the examples that a prompt shows")),
    "k": (N_("Examples per prompt (k)"), N_("0 means zero-shot")),
    "style": (N_("Prompt style"), ""),
    "max_tokens": (N_("Longest answer"), N_("In tokens")),
    "temperature": (N_("Temperature"), N_("0 gives the most likely answer each time")),
    "seed": (N_("Seed"), N_("For repeatable answers, where the backend can")),
    "budget": (N_("Budget per run"), N_("In US dollars; a run pauses when it is reached")),
    "concurrency": (N_("Calls at once"), N_("How many calls are in flight at the same time")),
    "unit": (
        N_("What is labeled"),
        N_("Each review, or all reviews of a product as one record; pending records change with it"),
    ),
    "max_tries": (N_("Tries per call"), N_("How often a call that failed in passing is tried")),
    "pinned": (N_("Pinned records"), N_("Record keys for the fixed retriever, one a line")),
}

# Sentences of errors that people meet, as the services raise them; %(name)s stands for what varies.
SENTENCES = (
    N_("Please sign in"),
    N_("Only an admin may do this"),
    N_("There is no such project"),
    N_("There is no such page"),
    N_("This address does not take that method"),
    N_("This is too large to be sent here"),
    N_("Something went wrong inside Labeler; the log says what"),
    N_("This page is too old or was not opened here; load it again and repeat"),
    N_("This server does not answer to that host name"),
    N_("The request comes from another site"),
    N_("The name or the password is wrong"),
    N_("Too many failed sign-ins; wait five minutes and try again"),
    N_("This sign-in link was used already or has expired; ask for a new one, or restart the server"),
    N_("The old password is wrong"),
    N_("A password has at least 10 characters; a few words make a good one"),
    N_("A password has at most 1000 characters"),
    N_("A name has 1 to 60 printable characters"),
    N_("There is already a reviewer called %(name)s"),
    N_("You cannot change the role of your own account or close it; ask another admin"),
    N_("A project needs a name of 1 to 80 characters"),
    N_("There is already a project called %(name)s; choose another name"),
    N_("There is no run number %(number)s"),
    N_("There is no import number %(number)s in this project"),
    N_("There is no export number %(number)s in this project"),
    N_("There is no record number %(number)s"),
    N_("Run %(number)s has already ended"),
    N_("Run %(number)s is not paused"),
    N_("The budget of %(amount)s is reached; raise it and resume"),
    N_("Nothing to do: every pending record has a suggestion already (see the option --again)"),
    N_("The openai backend needs a model id; set it for the task or for the instance"),
    N_("No OpenAI key: set OPENAI_API_KEY, or openai_base_url to a server of your own."),
    N_("Nothing to export: no annotation of %(task)s is approved; approve some records first"),
    N_("Nothing to export: no annotation of %(task)s is approved and fits the filters"),
    N_("Nothing to export: %(task)s has no suggestions; make some first"),
    N_("The label %(name)s stands twice in the label schema"),
    N_("The label %(name)s has an unknown parent %(parent)s"),
    N_("The label %(name)s makes a third level; a tree has two"),
    N_("A label schema needs at least one label"),
    N_("Which column holds the review? There are: %(columns)s; name it with --text"),
    N_("There is no column %(name)s; there are: %(columns)s"),
    N_("%(name)s is %(value)s; it must lie between %(low)s and %(high)s"),
    N_("%(name)s is %(value)s; a number is needed"),
    N_("The project %(project)s has no task %(task)s"),
    N_("No task %(name)s; loaded: %(names)s"),
    N_("There is no account number %(number)s"),
    N_("openai_base_url must be an http or https address; example: http://127.0.0.1:8000/v1"),
    N_("cancelled"),
    N_("being filled"),
    # Of backends
    N_("There is no approved example yet; approve a few records first"),
    N_("The neighbours say nothing about this record"),
    N_("The probe needs approved examples of at least two labels"),
    N_("The probe labels choices only, not %(kind)s"),
    N_("The record has no vector yet"),
    N_("No complete answer within %(n)s s; try again, or raise the time-out."),
    N_("No connection to %(address)s (%(reason)s); check the address, the network and that the server runs."),
    N_("The account has no credit left; add credit or raise its limit, then resume the run (%(status)s)."),
    N_("The server limits the rate; the call is worth another try later, with fewer at once (%(status)s)."),
    N_("The server does not accept the key; check OPENAI_API_KEY or openai_api_key (%(status)s)."),
    N_("No model %(model)s at %(address)s; check the model id, and that base_url is right (%(status)s)."),
    N_("The address does not take chat completions; set base_url to where the API begins (/v1) (%(status)s)."),
    N_("The server failed; the call is worth another try (%(status)s)."),
    N_("The prompt is longer than the model can read; show fewer examples or use another model (%(status)s)."),
    N_("The server refuses this prompt; see what it says, and label this record by hand (%(status)s)."),
    # Of the page itself
    N_("Choose a file first"),
    N_("Choose the column that holds the review text"),
    N_("Choose at least one task"),
    N_("Choose a project and a person"),
    N_(
        "This kind of file is not read; send CSV, TSV, JSON Lines, JSON, Excel (.xlsx) or Parquet, or one of them "
        "with .gz behind its name"
    ),
    N_("There is no such upload any more; send the file again"),
    N_("%(name)s is %(value)s; it must be a whole number from %(low)s to %(high)s"),
    N_("Only an admin may start a run that costs money; choose a free backend"),
    N_("There is no such file in this export"),
    N_("This project has no task; add one in its settings"),
    N_("The color %(color)s is none; write it like #2e7d32"),
    # Rows that an import refused
    N_("The text is empty"),
    N_("The text has %(n)s characters; at most %(most)s are taken"),
    N_("The id in column %(column)s is empty"),
    N_("the id %(id)s is taken by another text; change one of them"),
    N_("the label was left out: %(why)s"),
    N_("%(name)s is not one of the labels: %(labels)s"),
    N_("%(name)s is not the label %(label)s: it differs in case or white space"),
    # What an export left out, or warns of
    N_("The record has no text"),
    N_("The annotation has no value"),
    N_("The label schema of the task no longer allows the value; label these records again"),
    N_("Text and answer together are longer than the limit"),
    N_("Equal texts carry different labels; decide these records again"),
    N_("Equal texts with equal labels stand more than once"),
    N_("Somebody decided these records again while the export ran; export again to have them"),
    N_(
        "%(name)s has %(share)s of the rows, not %(wanted)s: too few rows, or products and near-duplicates that belong "
        "together are too large"
    ),
    N_("The shares %(a)s, %(b)s and %(c)s add up to %(sum)s; they must add up to 1"),
    N_("Nothing to export: every approved annotation of %(task)s is left out. %(why)s"),
)
_LONGEST = 1000
_HOLE = re.compile(r"%\\\((\w+)\\\)s")
_PATTERNS = [
    (sentence, re.compile(_HOLE.sub(lambda hole: f"(?P<{hole[1]}>.+)", re.escape(sentence)))) for sentence in SENTENCES
]


def word(name: str) -> str:
    """Return the page's word for a state, role, order, backend and the like; what a plugin added stays as it is."""
    return str(_(WORDS[name])) if name in WORDS else name


def setting_title(name: str) -> str:
    return str(_(SETTINGS[name][0])) if name in SETTINGS else name


def setting_help(name: str) -> str:
    help_ = SETTINGS.get(name, ("", ""))[1]
    return str(_(help_)) if help_ else ""


def said(sentence: str) -> str:
    """Return an error's sentence in the page's language; one that is not in the catalogue stays English."""
    for known, pattern in _PATTERNS if len(sentence) <= _LONGEST else ():
        match = pattern.fullmatch(sentence)
        if match:
            found = match.groupdict()
            if "why" in found:
                found["why"] = said(found["why"])
            return str(_(known, **found)) if found else str(_(known))
    return sentence
