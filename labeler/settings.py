"""Every setting of a project and of a task: its name, type, default and bounds, in one table each.

The page, the command line and the store use the same names. A value that does not fit raises
:class:`SettingError` with the name, the value and what is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from labeler import strictjson
from labeler.backends.base import ANSWERING
from labeler.errors import SettingError
from labeler.prompts import LANGUAGES
from labeler.prompts.styles import STYLES
from labeler.stored import StoredSettings

GENERATION = ("max_tokens", "temperature", "top_k", "top_p", "seed", "stop")
"""The settings of a task that say how a completion is generated, by the names of :class:`Generation`."""
LOCAL_EXECUTOR, BATCH_EXECUTOR = "local", "openai-batch"
CALIBRATE = "calibrate"
"""The purpose of a run over records whose labels are approved; other runs leave out what people decided."""
REPLAY = "replay"
"""The purpose of a run that makes what one arm of a replay says; its settings name both."""
DRAFT = "draft"
"""The purpose of a run that asks for drafts of guidelines; its settings name the replay that judges them. In those of
an arm it is the number of the draft that is judged."""
ON_APPROVED = (CALIBRATE, REPLAY, DRAFT)
"""The purposes of runs over records that people decided on."""
REPLAY_GRID, REPLAY_SAMPLE, REPLAY_WITHIN = ("backend", "model_id", "retriever", "k", "style"), 200, 0.05
"""What arms of a replay may differ in, how many of the newest approvals it takes, and how much worse than the best an
arm may be to be chosen for what it costs."""
SEARCH_DRAFTS, MOST_DRAFTS, MOST_JUDGED = 3, 8, 2_000
"""How many drafts of guidelines a search asks for, how many at most, and on how many approvals they are judged at most.
"""
AGAIN = "again"
"""What a run is started with, beside its settings, to ask anew for answers that could not be read."""
COLUMNS = ("hidden_columns", "blind_columns", "sent_columns")
"""The settings of a project that name columns of the metadata."""
MOST_SENT = 16
"""So many columns of the metadata can be sent beside a text."""
MODES = DIRECT, CASCADE = "direct", "cascade"
QUANTIZATIONS = ("auto", "nf4", "int8", "none")
_LEASE = 90.0
_WORDS = {"1": True, "true": True, "on": True, "yes": True, "0": False, "false": False, "off": False, "no": False}


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting. ``kind``: "int", "float", "bool", "text", "list" (of texts), "map" (language to text), "choice".

    ``empty`` says what holds where nothing is set, if that is not ``default`` itself.
    """

    name: str
    kind: str
    default: Any = None
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    help: str = ""
    empty: str = ""

    @property
    def unset(self) -> str:
        """What holds where nothing is set, as text."""
        return self.empty or strictjson.dumps(self.default)

    def read(self, raw: Any) -> Any:
        """Return the value of ``raw`` (typed text or JSON); empty text means the default."""
        if raw is None or raw == "":
            return self.default
        value = self._typed(raw)
        if self.choices and value not in self.choices:
            raise SettingError(f"{self.name} is {raw!r}; allowed are: {', '.join(self.choices)}")
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            too_low = self.low is not None and value < self.low
            if value != value or too_low or (self.high is not None and value > self.high):
                raise SettingError(f"{self.name} is {raw}; it must lie between {self.low} and {self.high}")
        return value

    def _typed(self, raw: Any) -> Any:
        try:
            if self.kind == "int" and not isinstance(raw, bool):
                return int(str(raw))
            if self.kind == "float" and not isinstance(raw, bool):
                return float(raw)
        except (TypeError, ValueError):
            raise SettingError(f"{self.name} is {str(raw)[:40]!r}; a number is needed") from None
        if self.kind == "bool" and str(raw).lower() in _WORDS:
            return _WORDS[str(raw).lower()]
        if self.kind in ("text", "choice") and isinstance(raw, str):
            return raw.strip()
        if self.kind == "list" and isinstance(raw, (list, tuple)) and all(isinstance(item, str) for item in raw):
            return list(raw)
        if self.kind == "map" and isinstance(raw, Mapping):
            if not all(language in LANGUAGES and isinstance(text, str) for language, text in raw.items()):
                raise SettingError(f'{self.name} must map languages ({", ".join(LANGUAGES)}) to texts: {{"en": "..."}}')
            return dict(raw)
        raise SettingError(f"{self.name} is {str(raw)[:40]!r}; it must be of the kind {self.kind}")


# fmt: off
PROJECT = (
    Setting("tasks", "list", [], help="The tasks of the project, in the order of the pages"),
    Setting("embedder", "text", "auto", help="What turns texts into vectors: lexical, e5, sentence-transformers, or "
            "auto: e5 where it is installed, otherwise lexical"),
    Setting("embedding_model", "text", "", help="The model for sentence-transformers: a name or a folder"),
    Setting("blind_share", "float", 0.05, 0, 1, help="The share of the queue shown without a suggestion"),
    Setting("order", "choice", "oldest", choices=("oldest", "score", "disagreement", "random"), help="Queue order"),
    Setting("hidden_columns", "list", [], help="Columns of the metadata that people never see"),
    Setting("blind_columns", "list", [], help="Columns of the metadata that people also see on blind records"),
    Setting("sent_columns", "list", [], help="Columns of the metadata that the model sees next to the text"),
    Setting("claim_minutes", "float", 10.0, 0.01, 1440, help="How long an opened record stays with a reviewer"),
    Setting("max_share_reviewer", "float", None, 0, 1, help="Largest share of the k examples from one reviewer",
            empty="0.5 if several reviewers label, otherwise 1"),
    Setting("max_share_group", "float", 1.0, 0, 1, help="Largest share of the k examples from one product"),
    Setting("budget_project", "float", None, 0, 1e6,
            help="The most all runs of the project may cost, in US dollars", empty="no limit"),
    Setting("budget_day", "float", None, 0, 1e6, help="The most the project may cost in one day, in US dollars",
            empty="no limit"),
    Setting("refresh", "bool", True, help="Renew suggestions at the front of the queue when their examples changed"),
    Setting("refresh_ahead", "int", 20, 0, 500, help="How many records at the front of the queue are renewed"),
)

TASK = (
    Setting("guidelines", "map", help="The guidelines, by language", empty="the plugin's own"),
    Setting("labels", "labels", help="The labels as JSON", empty="the plugin's own"),
    Setting("unit", "choice", choices=("record", "group"), help="One review, or all reviews of a product",
            empty="the task's own"),
    Setting("k", "int", None, 0, 64, help="How many examples a prompt shows", empty="the task's own"),
    Setting("retriever", "text", "", help="What chooses the examples for a prompt",
            empty="balanced for prompts, similar for free backends"),
    Setting("pinned", "list", [], help="Keys of the example records for the fixed retriever and the cascade"),
    Setting("backend", "text", "", help="What makes the suggestions",
            empty="openai if set up, otherwise ensemble where it can learn, and nearest"),
    Setting("model_id", "text", "", help="The model, by its name at the backend",
            empty="that of the instance"),
    Setting("style", "choice", "few-shot", choices=STYLES, help="The way of prompting"),
    Setting("persona", "map", help="Who the model is told to be, by language", empty="an experienced reviewer"),
    Setting("answer_wording", "map", help="How the prompt asks for an answer, by language", empty="one JSON object"),
    Setting("samples", "int", 5, 2, 40, help="How many answers self-consistency asks for"),
    Setting("mode", "choice", "direct", choices=MODES, help="direct, or cascade: try the cheapest step first"),
    Setting("cascade_score", "float", None, 0, 1,
            help="Cascade: call no model if the free answers agree with at least this score",
            empty="the model is always called"),
    Setting("joint", "list", [], help="Other tasks of the same record to ask in the same call"),
    Setting("answering", "choice", "auto", choices=ANSWERING, help="Score the labels, or generate the answers"),
    Setting("calibrate", "bool", True, help="Calibrate the scores if that wins in cross-validation"),
    Setting("trial", "bool", True, help="Ask about approved records first, and pool with the free suggestion"),
    Setting("max_tokens", "int", 1024, 1, 100_000, help="The longest answer, in tokens"),
    Setting("temperature", "float", 0.0, 0, 2, help="0 takes the likeliest token each time, above 0 samples"),
    Setting("top_k", "int", None, 1, 1000, help="Sample from the k likeliest tokens, if the backend can",
            empty="all tokens"),
    Setting("top_p", "float", None, 0, 1, help="Sample from the likeliest tokens with this total probability",
            empty="all tokens"),
    Setting("seed", "int", None, 0, 2**31, help="A fixed seed, if the backend takes one", empty="none"),
    Setting("stop", "list", [], help="Texts that end an answer"),
    Setting("quantization", "choice", "auto", choices=QUANTIZATIONS, help="Of local weights: nf4 (4 bits), int8, none"),
    Setting("device", "choice", "auto", choices=("auto", "cuda", "mps", "cpu"), help="Where local weights are loaded"),
    Setting("gguf_file", "text", "", help="The GGUF file in the model's folder or repository"),
    Setting("adapter", "text", "", help="The folder of a LoRA adapter for the local weights"),
    Setting("batch_size", "int", 16, 1, 512, help="How many prompts local weights read at once"),
    Setting("executor", "text", "local", help="How a run is sent: local, or openai-batch (half price, within a day)"),
    Setting("budget", "float", None, 0, 1e6, help="The most a run may cost, in US dollars", empty="no limit"),
    Setting("concurrency", "int", 16, 1, 256, help="How many calls are in flight at once"),
    Setting("max_tries", "int", 6, 1, 50, help="How many times a call is tried that fails temporarily"),
)
INSTANCE = (
    Setting("openai_base_url", "text", help="The address of an OpenAI-compatible server", empty="OpenAI's own"),
    Setting("openai_api_key", "text", help="The key of that server; never shown again", empty="none"),
    Setting("openai_model", "text", help="The model of tasks that name none, by its id", empty="none"),
    Setting("transformers_model", "text", help="The local model of tasks that name none: a hub id or a folder",
            empty="none"),
    Setting("requests_per_minute", "int", None, 1, 10_000_000, help="The server's limit of requests",
            empty="learned from the server"),
    Setting("tokens_per_minute", "int", None, 1, 10**10, help="The server's limit of tokens",
            empty="learned from the server"),
    Setting("timeout_seconds", "float", None, 0.1, 3600, help="How long one call may take", empty="60"),
    Setting("lease_seconds", "float", None, 0.1, 86400, help="After how long a call of a dead worker is sent again",
            empty="1.5 times timeout_seconds, at least 90"),
)
# fmt: on
_TABLES = {
    name: {s.name: s for s in table} for name, table in (("project", PROJECT), ("task", TASK), ("instance", INSTANCE))
}


def lease(instance: Mapping[str, Any]) -> float:
    """Return after how many seconds a call of a dead worker is sent again: later than it may take, or it goes twice."""
    return float(instance.get("lease_seconds") or max(_LEASE, 1.5 * float(instance.get("timeout_seconds") or 0)))


_OF_A_RUN = ("purpose", AGAIN, REPLAY, "arm", DRAFT)


def overrides(run_settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a task that a run has other than its task; what else a run says of itself is left out."""
    return {name: value for name, value in run_settings.items() if name not in _OF_A_RUN}


def check_columns(project: Mapping[str, Any]) -> None:
    """Raise :class:`SettingError` for settings of a project that say two things of a column, or send too many."""
    both = [name for name in project.get("hidden_columns", ()) if name in project.get("blind_columns", ())]
    if both:
        raise SettingError(
            f"hidden_columns and blind_columns both name {both[0][:80]!r}; take it out of one of them: what is hidden "
            "is shown on no record"
        )
    sent = project.get("sent_columns", ())
    if len(sent) > MOST_SENT:
        raise SettingError(f"sent_columns names {len(sent)} columns; at most {MOST_SENT} can be sent beside a text")


def read_settings(table: str, raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return all settings of "project", "task" or "instance": those in ``raw`` checked, the others by default.

    Raises :class:`SettingError` for a name that does not exist.
    """
    if not isinstance(raw, StoredSettings):
        return _checked(table, raw)
    if table not in raw.checked:
        raw.checked[table] = _checked(table, raw)
    return dict(raw.checked[table])


def _checked(table: str, raw: Mapping[str, Any]) -> dict[str, Any]:
    known = _TABLES[table]
    strange = [name for name in raw if name not in known]
    if strange:
        raise SettingError(f"No {table} setting {strange[0]!r}; there are: {', '.join(known)}")
    return {name: raw.get(name) if s.kind == "labels" else s.read(raw.get(name)) for name, s in known.items()}


def differing(table: str, given: Mapping[str, Any], seen: Mapping[str, Any]) -> list[str]:
    """Return the names of those settings in ``given`` that are not as in ``seen``. Raises :class:`SettingError`."""
    new, old = read_settings(table, given), read_settings(table, seen)
    return [name for name in given if new[name] != old[name]]


def merged_settings(
    table: str, now: Mapping[str, Any], given: Mapping[str, Any], seen: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what is to be stored: the settings ``now``, with what was changed from ``seen`` to ``given``.

    What somebody left as they saw it overwrites nothing that another changed meanwhile; a map goes by languages.
    """
    changes: dict[str, Any] = {}
    for name in differing(table, given, seen):
        changes[name] = given[name]
        if _TABLES[table][name].kind == "map":
            parts, old, new = (dict(one.get(name) or {}) for one in (now, seen, given))
            parts |= {language: new.get(language) for language in LANGUAGES if new.get(language) != old.get(language)}
            changes[name] = {language: text for language, text in parts.items() if text} or None
    return changed_settings(table, {**now, **changes})


def changed_settings(table: str, raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of ``raw`` that differ from the defaults: what is stored."""
    known = _TABLES[table]
    return {name: value for name, value in read_settings(table, raw).items() if value != known[name].default}
