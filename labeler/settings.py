"""Every setting of a project and of a task: its name, type, default and bounds, in one table each.

The page, the command line and the store use the same names. A value that does not fit raises
:class:`SettingError` with the name, the value and what is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from labeler import strictjson
from labeler.backends.base import ANSWERING
from labeler.errors import SettingError
from labeler.prompts import LANGUAGES, NAMES, titled
from labeler.prompts.forms import ANSWERS, FULL, GUIDELINES, JSON, STORED
from labeler.prompts.styles import STYLES
from labeler.sentence import N_
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
WRITE = "write"
"""The purpose of a run that asks for texts of rare labels, each call after a record of its own."""
JUDGE = "judge"
"""The purpose of a run that judges answers; its settings name the replay they are of."""
ON_APPROVED = (CALIBRATE, REPLAY, DRAFT, WRITE, JUDGE)
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
    """All that is known of one setting; pages, command line, checks and docs/reference.md follow from it.

    ``kind``: "int", "float", "bool", "text", "list" (of texts), "map" (language to text), "choice". ``title`` and
    ``help`` are English and in the catalogue, or map languages to texts. ``empty`` says what holds where nothing is
    set, if that is not ``default`` itself. A ``secret`` is never shown again. ``group`` is the heading on its page.
    Admins of a project change its settings and those of its tasks on the pages, but for a ``reserved`` one: that is
    changed by admins of the instance alone, as all settings of the instance are.
    """

    name: str
    kind: str
    default: Any = None
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    title: str | Mapping[str, str] = ""
    help: str | Mapping[str, str] = ""
    empty: str = ""
    group: str = ""
    secret: bool = False
    reserved: bool = False

    @property
    def meaning(self) -> str:
        """Title and help as one line, in English, for the command line."""
        title, said = (titled(text, "en") if isinstance(text, Mapping) else text for text in (self.title, self.help))
        meant = f"{title}. {said}" if title and said else title or said or self.name
        return f"{meant} (on the pages, only admins of the instance change it)" if self.reserved else meant

    @property
    def unset(self) -> str:
        """What holds where nothing is set, as text."""
        return self.empty or strictjson.dumps(self.default)

    def read(self, raw: Any) -> Any:
        """Return the value of ``raw`` (typed text or JSON); empty text means the default.

        Raises :class:`SettingError`.
        """
        if raw is None or raw == "":
            return self.default
        value = self._typed(raw)
        wrong = [one for one in (value if self.kind == "list" else [value]) if self.choices and one not in self.choices]
        if wrong:
            raise SettingError(
                "%(setting)s is %(value)r; allowed are: %(names)s",
                setting=self.name,
                value=wrong[0],
                names=", ".join(self.choices),
            )
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            too_low = self.low is not None and value < self.low
            if value != value or too_low or (self.high is not None and value > self.high):
                raise SettingError(
                    "%(setting)s is %(value)s; it must lie between %(low)s and %(high)s",
                    setting=self.name,
                    value=raw,
                    low=self.low,
                    high=self.high,
                )
        return value

    def _typed(self, raw: Any) -> Any:
        try:
            if self.kind == "int" and not isinstance(raw, bool):
                return int(str(raw))
            if self.kind == "float" and not isinstance(raw, bool):
                return float(raw)
        except (TypeError, ValueError):
            raise SettingError(
                "%(setting)s is %(value)r; a number is needed", setting=self.name, value=str(raw)[:40]
            ) from None
        if self.kind == "bool" and str(raw).lower() in _WORDS:
            return _WORDS[str(raw).lower()]
        if self.kind in ("text", "choice") and isinstance(raw, str):
            return raw.strip()
        if self.kind == "list" and isinstance(raw, (list, tuple)) and all(isinstance(item, str) for item in raw):
            return list(raw)
        if self.kind == "map" and isinstance(raw, Mapping):
            if not all(language in LANGUAGES and isinstance(text, str) for language, text in raw.items()):
                raise SettingError(
                    '%(name)s must map languages (%(names)s) to texts: {"en": "..."}',
                    name=self.name,
                    names=", ".join(LANGUAGES),
                )
            return dict(raw)
        raise SettingError(
            "%(setting)s is %(value)r; it must be of the kind %(kind)s",
            setting=self.name,
            value=str(raw)[:40],
            kind=self.kind,
        )


RUNS, EXPORTS, NUMBERS = RIGHTS = ("runs", "exports", "numbers")
"""What reviewers may be allowed: to start runs and replays, to export, to see agreement and the other numbers."""
# fmt: off
PROJECT = (
    Setting(
        "tasks", "list", [], group="tasks",
        title=N_("Tasks"),
        help=N_("The tasks of the project, in the order of the pages"),
    ),
    Setting(
        "embedder", "text", "auto", group="examples",
        title=N_("Embedder"),
        help=N_("Turns texts into vectors, to find similar examples"),
    ),
    Setting(
        "embedding_model", "text", "", group="examples",
        title=N_("Embedding model"),
        help=N_("For sentence-transformers: a model name or a folder"),
        # The server fetches and loads what it names.
        reserved=True,
    ),
    Setting(
        "order", "choice", "oldest", choices=("oldest", "score", "disagreement", "random"), group="queue",
        title=N_("Queue order"),
        help=N_("Which record comes next on the desk"),
    ),
    Setting(
        "blind_share", "float", 0.05, 0, 1, group="queue",
        title=N_("Blind share"),
        help=N_("The share of records shown without a suggestion, to measure agreement without bias (0 to 1)"),
    ),
    Setting(
        "people_per_record", "int", 1, 1, 9, group="team",
        title=N_("People per record"),
        help=N_("How many people decide on each record, without seeing what the others say"),
    ),
    Setting(
        "shared_part", "float", 1.0, 0, 1, group="team",
        title=N_("Shared part"),
        help=N_("The part of the records that several people decide on (0 to 1); the others need one person"),
    ),
    Setting(
        "shared_tasks", "list", [], group="team",
        title=N_("Shared tasks"),
        help=N_("The tasks in which several people decide on a record; all of them if none is chosen"),
        empty="all tasks",
    ),
    Setting(
        "gold_share", "float", 0.0, 0, 0.5, group="team",
        title=N_("Share of known records"),
        help=N_("How many of the records that come to a person have the tag gold, to see how people do (0 to 0.5)"),
    ),
    Setting(
        "reviewers_may", "list", [], choices=RIGHTS, group="team",
        title=N_("Reviewers may"),
        help=N_("What people may do who are no admins of the project; the agreement is that of people and suggestions"),
    ),
    Setting(
        "hidden_columns", "list", [], group="columns",
        title=N_("Hidden from people"),
        help=N_("Reviewers see it on no record"),
    ),
    Setting(
        "blind_columns", "list", [], group="columns",
        title=N_("Shown on blind records"),
        help=N_("Reviewers see it also where no suggestion is shown"),
    ),
    Setting(
        "sent_columns", "list", [], group="columns",
        title=N_("Sent to the model"),
        help=N_("It is in the prompt next to the text, and free suggestions learn from it; all are made again"),
    ),
    Setting(
        "claim_minutes", "float", 10.0, 0.01, 1440, group="queue",
        title=N_("Minutes per record"),
        help=N_("How long an opened record stays reserved for a reviewer"),
    ),
    Setting(
        "max_share_reviewer", "float", None, 0, 1, group="examples",
        title=N_("Largest share of one reviewer"),
        help=N_("How many of the examples in a prompt may come from one reviewer (0 to 1)"),
        empty="0.5 if several reviewers label, otherwise 1",
    ),
    Setting(
        "max_share_group", "float", 1.0, 0, 1, group="examples",
        title=N_("Largest share of one product"),
        help=N_("How many of the examples in a prompt may come from one product (0 to 1)"),
    ),
    Setting(
        "budget_project", "float", None, 0, 1000000.0, group="budgets",
        title=N_("Budget of the project"),
        help=N_("The most all runs together may cost, in US dollars"),
        empty="no limit",
    ),
    Setting(
        "budget_day", "float", None, 0, 1000000.0, group="budgets",
        title=N_("Budget of a day"),
        help=N_("The most the project may cost in one day (UTC), in US dollars"),
        empty="no limit",
    ),
    Setting(
        "refresh", "bool", True, group="queue",
        title=N_("Renew suggestions after approvals"),
        help=N_("Pending suggestions near the front of the queue are made again when their examples changed"),
    ),
    Setting(
        "refresh_ahead", "int", 20, 0, 500, group="queue",
        title=N_("Records kept fresh"),
        help=N_("How many records from the front of the queue are renewed"),
    ),
)
TASK = (
    Setting(
        "guidelines", "map", group="asked",
        title=N_("Guidelines"),
        help=N_("Reviewers and the model read the same guidelines. Empty: those of the plugin."),
        empty="the plugin's own",
    ),
    Setting(
        "labels", "labels", group="asked",
        title=N_("Labels"),
        help=N_(
            "The name is what is stored and exported. A parent makes a label a subcategory. A new name in the same "
            "row renames the label wherever it was given; what becomes of a row that is removed is asked before it is "
            "saved."
        ),
        empty="the plugin's own",
    ),
    Setting(
        "unit", "choice", choices=("record", "group"), group="asked",
        title=N_("What is labeled"),
        help=N_("Each review, or all reviews of a product as one record; pending records change with it"),
        empty="the task's own",
    ),
    Setting(
        "k", "int", None, 0, 64, group="shown",
        title=N_("Examples per prompt"),
        help=N_("0 means zero-shot"),
        empty="the task's own",
    ),
    Setting(
        "retriever", "text", "", group="shown",
        title=N_("Retriever"),
        help=N_("Chooses the examples that a prompt shows"),
        empty="balanced for prompts, similar for free backends",
    ),
    Setting(
        "pinned", "list", [], group="shown",
        title=N_("Pinned records"),
        help=N_("Record keys for the fixed retriever and the cascade, one a line"),
    ),
    Setting(
        "backend", "text", "", group="model",
        title=N_("Backend"),
        help=N_("What makes the suggestions"),
        empty="openai if set up, otherwise ensemble where it can learn, and nearest",
    ),
    Setting(
        "model_id", "text", "", group="model",
        title=N_("Model"),
        help=N_("The name of the model on the server or the hub"),
        empty="that of the instance",
    ),
    Setting(
        "style", "choice", "few-shot", choices=tuple(STYLES), group="prompting",
        title=N_("Prompt style"),
        help=N_("What the model is asked to do before it answers"),
    ),
    Setting(
        "samples", "int", 5, 2, 40, group="prompting",
        title=N_("Samples"),
        help=N_("How many answers self-consistency asks for"),
    ),
    Setting(
        "mode", "choice", "direct", choices=MODES, group="prompting",
        title=N_("Mode"),
        help=N_("A cascade asks the free backends first, then with fixed examples, then with retrieved ones"),
    ),
    Setting(
        "cascade_score", "float", None, 0, 1, group="prompting",
        title=N_("Score that saves the call"),
        help=N_(
            "Where the free backends agree with at least this score (0 to 1), no call is made. Empty: always call."
        ),
        empty="the model is always called",
    ),
    Setting(
        "joint", "list", [], group="prompting",
        title=N_("Asked in the same call"),
        help=N_("Other tasks of the same record; one call answers all of them, without reasoning"),
    ),
    Setting(
        "persona", "map", group="prompting",
        title=N_("Persona"),
        help=N_("Who the model is told to be; empty: an experienced reviewer"),
        empty="an experienced reviewer",
    ),
    Setting(
        "answer_wording", "map", group="prompting",
        title=N_("Wording of the answer"),
        help=N_("How the answer is asked for; empty: as one JSON object"),
        empty="one JSON object",
    ),
    Setting(
        "prompt_guidelines", "choice", FULL, choices=GUIDELINES, group="prompting",
        title=N_("Guidelines in prompts"),
        help=N_("A model that was trained on short guidelines, or on none, is to be asked with the same"),
    ),
    Setting(
        "short_guidelines", "map", group="prompting",
        title=N_("Short guidelines"),
        help=N_("The guidelines in a sentence or two, for prompts of trained models; empty: those of the task"),
        empty="those of the task",
    ),
    Setting(
        "answer_form", "choice", JSON, choices=ANSWERS, group="prompting",
        title=N_("Form of the answer"),
        help=N_("json: one JSON object; plain: the bare label, for models that were trained to write it"),
    ),
    Setting(
        "label_names", "choice", STORED, choices=NAMES, group="prompting",
        title=N_("Names of the labels"),
        help=N_("stored: as they are exported; ko, en: their titles in that language"),
    ),
    Setting(
        "answering", "choice", "auto", choices=ANSWERING, group="model",
        title=N_("Way of answering"),
        help=N_(
            "Scoring costs almost no output tokens and gives real scores. Styles that reason need generated answers."
        ),
    ),
    Setting(
        "calibrate", "bool", True, group="model",
        title=N_("Calibrate scores"),
        help=N_("Correct the scores of the labels where that agrees better with approved labels"),
    ),
    Setting(
        "trial", "bool", True, group="model",
        title=N_("Ask approved records first"),
        help=N_(
            "That says what the model is worth; its answers are pooled with the free suggestion where that is better"
        ),
    ),
    Setting(
        "max_tokens", "int", 1024, 1, 100000, group="generation",
        title=N_("Longest answer"),
        help=N_("In tokens"),
    ),
    Setting(
        "temperature", "float", 0.0, 0, 2, group="generation",
        title=N_("Temperature"),
        help=N_("0 gives the most likely answer each time"),
    ),
    Setting(
        "top_k", "int", None, 1, 1000, group="generation",
        title=N_("Top-k"),
        help=N_("Sample from the k likeliest tokens, where the backend can"),
        empty="all tokens",
    ),
    Setting(
        "top_p", "float", None, 0, 1, group="generation",
        title=N_("Top-p"),
        help=N_("Sample from the likeliest tokens of this joint probability (0 to 1)"),
        empty="all tokens",
    ),
    Setting(
        "seed", "int", None, 0, 2147483648, group="generation",
        title=N_("Seed"),
        help=N_("For repeatable answers, where the backend can"),
        empty="none",
    ),
    Setting(
        "stop", "list", [], group="generation",
        title=N_("Stop texts"),
        help=N_("Texts that end an answer, one a line; \\n is a line break"),
    ),
    Setting(
        "quantization", "choice", "auto", choices=QUANTIZATIONS, group="weights",
        title=N_("Quantization"),
        help=N_("Fewer bits need less memory, but answers get a little worse"),
    ),
    Setting(
        "device", "choice", "auto", choices=("auto", "cuda", "mps", "cpu"), group="weights",
        title=N_("Device"),
        help=N_("Where the weights are put"),
    ),
    Setting(
        "gguf_file", "text", "", group="weights",
        title=N_("GGUF file"),
        help=N_("The file in the model's folder or repository, if it is one"),
    ),
    Setting(
        "adapter", "text", "", group="weights",
        title=N_("Adapter"),
        help=N_("The folder of what peft trained for these weights; a training of this instance is named as the model"),
    ),
    Setting(
        "batch_size", "int", 16, 1, 512, group="weights",
        title=N_("Prompts at once"),
        help=N_("How many prompts the model reads together; halved when memory runs out"),
    ),
    Setting(
        "executor", "text", "local", group="model",
        title=N_("Executor"),
        help=N_("Separate calls, or a batch that is answered within a day"),
    ),
    Setting(
        "budget", "float", None, 0, 1000000.0, group="pace",
        title=N_("Budget per run"),
        help=N_("In US dollars; a run pauses when it is reached"),
        empty="no limit",
    ),
    Setting(
        "concurrency", "int", 16, 1, 256, group="pace",
        title=N_("Calls at once"),
        help=N_("How many calls are in flight at the same time"),
    ),
    Setting(
        "max_tries", "int", 6, 1, 50, group="pace",
        title=N_("Tries per call"),
        help=N_("How many times a call is tried that fails temporarily"),
    ),
)
INSTANCE = (
    Setting(
        "openai_base_url", "text", group="server",
        title=N_("Address"),
        help=N_("http or https, up to where the API begins (/v1)"),
        empty="OpenAI's own",
    ),
    Setting(
        "openai_api_key", "text", group="server",
        title=N_("Key"),
        help=N_("Stored on the server, readable by its owner only, and never shown again"),
        empty="none",
        secret=True,
    ),
    Setting(
        "openai_model", "text", group="server",
        title=N_("Model"),
        help=N_("For tasks without a model of their own: the name of the model on the server"),
        empty="none",
    ),
    Setting(
        "transformers_model", "text", group="local",
        title=N_("Local model"),
        help=N_("For tasks without a model of their own: a hub id or a folder on this computer"),
        empty="none",
    ),
    Setting(
        "requests_per_minute", "int", None, 1, 10000000, group="limits",
        title=N_("Requests per minute"),
        help=N_("The most requests sent to the server"),
        empty="learned from the server",
    ),
    Setting(
        "tokens_per_minute", "int", None, 1, 10000000000, group="limits",
        title=N_("Tokens per minute"),
        help=N_("The most tokens sent and received, as estimated beforehand"),
        empty="learned from the server",
    ),
    Setting(
        "timeout_seconds", "float", None, 0.1, 3600, group="server",
        title=N_("Time-out in seconds"),
        help=N_("How long one whole answer may take"),
        empty="60",
    ),
    Setting(
        "lease_seconds", "float", None, 0.1, 86400, group="limits",
        title=N_("Seconds until a call is resent"),
        help=N_("When a worker dies, its call is sent again after this time. Empty: longer than the time-out."),
        empty="1.5 times timeout_seconds, at least 90",
    ),
    Setting(
        "oidc_issuer", "text", group="sign_in",
        title=N_("Address of the provider"),
        help=N_("The issuer, as the provider writes it: https://login.example.com/realms/staff"),
        empty="none: people sign in with a password or a link",
    ),
    Setting(
        "oidc_client_id", "text", group="sign_in",
        title=N_("Client ID"),
        help=N_("The number or name that the provider gave Labeler"),
        empty="none",
    ),
    Setting(
        "oidc_client_secret", "text", group="sign_in",
        title=N_("Client secret"),
        help=N_("Stored on the server, readable by its owner only, and never shown again"),
        empty="none",
        secret=True,
    ),
    Setting(
        "oidc_title", "text", group="sign_in",
        title=N_("Name on the button"),
        help=N_("What people know the provider as: the name of your company, or Google"),
        empty="the company's account",
    ),
    Setting(
        "oidc_allowed", "list", [], group="sign_in",
        title=N_("Who may sign in"),
        help=N_("Domains of e-mail addresses (@example.com) and names of groups, one a line; one of them is enough"),
        empty="everybody who has an account here",
    ),
    Setting(
        "oidc_new_accounts", "bool", False, group="sign_in",
        title=N_("Make accounts"),
        help=N_("A person who may sign in and is new gets an account, as a reviewer without a project"),
    ),
)
# fmt: on
TABLES = {"project": PROJECT, "task": TASK, "instance": INSTANCE}
_TABLES = {name: {s.name: s for s in table} for name, table in TABLES.items()}


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
            "hidden_columns and blind_columns both name %(name)r; take it out of one of them: what is "
            "hidden is shown on no record",
            name=both[0][:80],
        )
    sent = project.get("sent_columns", ())
    if len(sent) > MOST_SENT:
        raise SettingError(
            "sent_columns names %(n)s columns; at most %(most)s can be sent beside a text", n=len(sent), most=MOST_SENT
        )


_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def is_safe_address(address: str) -> bool:
    """Whether nobody on the way can read or change what is sent there: https, or http within this machine."""
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        return False
    safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
    return safe and bool(parts.hostname) and "@" not in parts.netloc and address.isprintable() and " " not in address


def check_sign_in(instance: Mapping[str, Any]) -> None:
    """Raise :class:`SettingError` for settings of the instance that would let in nobody, or the whole world."""
    issuer, allowed = instance.get("oidc_issuer"), instance.get("oidc_allowed") or []
    if issuer and (not is_safe_address(issuer) or "?" in issuer or "#" in issuer):
        raise SettingError(
            "%(setting)s must be an https address without ? and #, such as https://login.example.com",
            setting="oidc_issuer",
        )
    for one in allowed:
        if "@" in one and not re.fullmatch(r"@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+", one):
            raise SettingError(
                "%(setting)s has %(value)r; write a domain as @example.com, or the name of a group",
                setting="oidc_allowed",
                value=one[:80],
            )
    if instance.get("oidc_new_accounts") and not allowed:
        raise SettingError(
            "%(setting)s needs a domain or a group in oidc_allowed; otherwise everybody whom the provider knows could "
            "make an account",
            setting="oidc_new_accounts",
        )


Table = str | Mapping[str, Setting]
"""The settings of "project", "task" or "instance", or others by name: those of the instance with those of plugins."""


def read_settings(table: Table, raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return all settings of a table: those in ``raw`` checked, the others by default.

    Raises :class:`SettingError` for a name that does not exist.
    """
    if not isinstance(table, str) or not isinstance(raw, StoredSettings):
        return _checked(table, raw)
    if table not in raw.checked:
        raw.checked[table] = _checked(table, raw)
    return dict(raw.checked[table])


def _checked(table: Table, raw: Mapping[str, Any]) -> dict[str, Any]:
    known = _TABLES[table] if isinstance(table, str) else table
    strange = [name for name in raw if name not in known]
    if strange:
        of = table if isinstance(table, str) else "instance"
        raise SettingError(
            "No %(of)s setting %(name)r; there are: %(names)s", of=of, name=strange[0], names=", ".join(known)
        )
    return {name: raw.get(name) if s.kind == "labels" else s.read(raw.get(name)) for name, s in known.items()}


def differing(table: Table, given: Mapping[str, Any], seen: Mapping[str, Any]) -> list[str]:
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


def changed_settings(table: Table, raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of ``raw`` that differ from the defaults: what is stored."""
    known = _TABLES[table] if isinstance(table, str) else table
    return {name: value for name, value in read_settings(table, raw).items() if value != known[name].default}


def refuse_joint_cascade(settings: Mapping[str, Any]) -> None:
    """Raise :class:`SettingError` for settings of a task that ask for a cascade of several tasks at once."""
    if settings.get("joint") and settings.get("mode") == CASCADE:
        raise SettingError("A cascade asks for one task at a time; clear the setting joint, or set mode to direct")
