"""The contract of a backend: what turns requests into completions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from labeler.errors import PluginError
from labeler.labels import LabelSchema
from labeler.records import BackendFailure, Completion, Example, Generation, Message, Record, Value

if TYPE_CHECKING:
    import numpy as np

AUTO, SCORED, GENERATED = "auto", "scored", "generated"
ANSWERING = (AUTO, SCORED, GENERATED)
LEARNING = ("ensemble", "probe", "classifier")
"""The built-in backends that learn, by the names that stored suggestions have."""
FOLDER = "instance_folder"
"""Where :meth:`BackendFactory.create` finds the folder of the instance among its settings."""


@dataclass(frozen=True, slots=True)
class BackendRequest:
    """All that any backend may use to label one record.

    LLM backends read ``messages`` and ``json_schema``; ``nearest``, ``probe`` and ``ensemble`` read ``examples``,
    ``vector`` (float32, shape (d,), L2-normalised) and ``schema``. ``answering`` is "auto" (scores of the labels
    where the schema has a closed list and the backend can give them), "scored" (refuse if it cannot) or
    "generated" (free text or JSON only; prompts that ask for reasoning need it). ``size`` is how many labels the
    values of a set have on average, as far as the examples tell. ``longest`` is how many tokens the schema can need,
    None where it sets no bound or a person has set one: an answer that is longer has run away. ``columns`` are those of
    the metadata of the record and of the examples that an answer may go by; the messages hold them already.
    """

    record: Record
    task: str
    schema: LabelSchema
    messages: Sequence[Message] = ()
    json_schema: Mapping[str, Any] = field(default_factory=dict)
    generation: Generation = Generation()
    examples: Sequence[Example] = ()
    vector: np.ndarray | None = None
    answering: str = AUTO
    size: float | None = None
    longest: int | None = None
    columns: Sequence[str] = ()


class Backend(ABC):
    """Turns requests into completions. Derive from it, give ``name`` and :meth:`complete`, and what is not as below.

    A billed backend goes through the ledger of calls: budgets, rate limits, prices by ``model_id``, and no answered
    call is made again. The others are free, deterministic and fast enough to answer while a page waits.
    """

    name: str
    model_id: str | None = None
    billed: bool = False
    local: bool = False
    """A call costs no fee and keeps no rate limit: weights in this process, loaded for one such backend at a time."""
    learns: bool = False
    """It answers by what was fitted on the approvals of a task."""
    prompted: bool = True
    """A billed one answers a prompt; one that does not reads the text alone, so it is shown no examples."""
    batch: int = 1
    """How many requests :meth:`complete` wants at once: 1 spreads them over threads, more come from one thread."""
    base_url: str | None = None
    """The address of the server: answers of another one are others, and rate limits go by it."""
    context: int | None = None
    """How many tokens a prompt and its answer may have together; None where that is not known (yet)."""
    generation_settings: frozenset[str] | None = None
    """The fields of :class:`Generation` that it has, None for all; another that a person chose is refused."""
    weights: str = ""
    """What tells the weights that lie under the model id now from others that did before."""
    learned: str = ""
    """What it has learned from approvals so far, as the ``fit`` of its completions: another makes suggestions again."""
    thinks: bool = False
    """Whether the model thinks before it answers, which takes tokens of its answer."""
    slots: int | None = None
    """How many calls the server answers at once, None where that is not known."""
    capabilities: Any = None
    """What is known of the server now."""
    before_loading: Callable[[], None] = staticmethod(lambda: None)
    """Set from outside for a local backend, which calls it before it loads weights: it frees those of others."""
    count_tokens: Callable[[Sequence[Message]], int] | None = None
    """Returns how many tokens a prompt has; None where it cannot count them."""
    asked: Mapping[str, Any] = {}
    """How its model was asked when it was trained, by the names of a training set: it is asked so again, whatever the
    settings of a task say. Empty for a model that was not trained here."""

    @abstractmethod
    def complete(self, requests: Sequence[BackendRequest]) -> Iterator[Completion | BackendFailure]:
        """Yield one answer for each request, in order. Called from several threads at once.

        Raises nothing for a call that fails: a :class:`BackendFailure` stands in its place.
        """

    def ready(self) -> None:  # noqa: B027
        """Called before a run's first call. Raises :class:`LabelerError` where there is no use in calling."""

    def answers(self) -> bool:
        """Whether the server can be reached now."""
        return True

    def answers_now(self) -> bool:
        """Whether it can answer while a page waits: a free backend that would have to be fitted first cannot."""
        return True

    def moved_by(self, request: BackendRequest, value: Value) -> Mapping[str, Sequence[tuple[str, float]]]:
        """Return what each word does for each label of ``value``, in nats, most first; empty where it cannot say."""
        return {}

    def check(self) -> Mapping[str, Any] | None:
        """Make one tiny call for a "test" button; None where there is nothing to test.

        Returns "ok", "model", "ms", "message" and "capabilities", and "notes": sentences with anything more to know.
        """
        return None

    def close(self) -> None:  # noqa: B027
        """Free what it holds; the next :meth:`complete` may still come."""


class BackendFactory(ABC):
    """What a plugin registers: makes a backend from the settings of a task and an instance.

    ``options`` names the settings of a task that it reads. ``shared`` True says that it reads neither ``embed`` nor
    ``index``, so that one backend serves all tasks. ``billed`` says what its backends will be, None: as ``shared``;
    only admins start runs of billed ones. ``local``: as that of its backends. ``about`` says in a few words what it
    does, for ``labeler backends``, such as "votes by the nearest approved records".
    """

    name: str
    options: Sequence[str] = ("model_id",)
    shared: bool = False
    billed: bool | None = None
    local: bool = False
    about: str = ""
    model_setting: str = ""
    """The setting of the instance that names the model of tasks that name none; empty without such a setting."""

    @property
    def spends(self) -> bool:
        """Whether its backends are billed."""
        return self.shared if self.billed is None else self.billed

    def configured(self, settings: Mapping[str, Any]) -> bool:
        """Whether the instance's ``settings`` are enough to be the backend of tasks that name none."""
        return False

    def own(self, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what :meth:`create` gets beside the instance's ``settings``, such as a key of the environment."""
        return {}

    def address(self, settings: Mapping[str, Any]) -> str:
        """Return the ``base_url`` that its backends will have, as far as the ``settings`` tell; empty for none.

        Raises :class:`SettingError` for one that is no address.
        """
        return ""

    def missing(self, settings: Mapping[str, Any]) -> str:
        """Return what has to be set or installed before it can be used; an empty text where nothing is missing."""
        return ""

    def check(self, changes: Mapping[str, Any]) -> None:  # noqa: B027
        """Raise :class:`SettingError` for settings of the instance that cannot be. Called before they are stored."""

    def check_change(  # noqa: B027
        self, before: Mapping[str, Any], after: Mapping[str, Any], changes: Mapping[str, Any]
    ) -> None:
        """Raise :class:`SettingError` for a change that may not be, such as another server for the same key.

        ``before`` and ``after`` are all settings of the instance, ``changes`` those that were given. Called in the
        transaction that stores them.
        """

    @abstractmethod
    def create(self, settings: Mapping[str, Any]) -> Backend:
        """Return a backend. Raises :class:`LabelerError` that says which setting is missing."""


def made_by(factory: BackendFactory, settings: Mapping[str, Any]) -> Backend:
    """Return what a factory makes of settings and its own. Raises :class:`PluginError` where that is no backend."""
    made = factory.create({**settings, **factory.own(settings)})
    if not isinstance(made, Backend):
        raise PluginError(
            "The backend %(name)s must derive from Backend, and is %(kind)s",
            name=factory.name,
            kind=type(made).__name__,
        )
    return made
