"""The ways of training, and the numbers that each begins with: by method, by size of the model, by objective."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from labeler.backends.local.cards import CLASSIFY, REWARD
from labeler.errors import SettingError

SFT, DPO, ORPO, KTO = "sft", "dpo", "orpo", "kto"
_OF_ANSWERS = (SFT, DPO, ORPO, KTO, REWARD)
OBJECTIVES = (*_OF_ANSWERS, CLASSIFY)
FULL, QLORA, PREFIX, CLASSIFIER = "full", "qlora", "prefix", "classifier"
ALL_WEIGHTS = (FULL, CLASSIFIER)
"""The methods that train all weights, and leave a model of its own."""


@dataclass(frozen=True, slots=True)
class Method:
    """``rate`` is the learning rate that answers are learned with; ``tokens`` how many virtual ones it adds.

    ``objectives`` are what it can be trained for, and ``peft`` is what peft calls it; empty for all of the weights.
    ``extra`` names what has to be installed for it.
    """

    name: str
    peft: str
    rate: float
    source: str
    tokens: int = 0
    objectives: tuple[str, ...] = (SFT,)
    extra: str = "train"


METHODS = {
    method.name: method
    for method in (
        Method("lora", "LORA", 2e-4, "Hu et al. 2021, arXiv:2106.09685; in all linear layers and with this rate:"
               " Dettmers et al. 2023, arXiv:2305.14314", objectives=_OF_ANSWERS),
        Method(QLORA, "LORA", 2e-4, "Dettmers et al. 2023, arXiv:2305.14314: NF4, double quantisation, paged AdamW",
               objectives=_OF_ANSWERS),
        Method("ia3", "IA3", 3e-3, "Liu et al. 2022, arXiv:2205.05638", objectives=(SFT, DPO, ORPO, KTO)),
        Method(PREFIX, "PREFIX_TUNING", 1e-2, "Li and Liang 2021, arXiv:2101.00190; the rate of peft's example", 20),
        Method("prompt", "PROMPT_TUNING", 3e-2, "Lester et al. 2021, arXiv:2104.08691; the rate of peft's example",
               20),
        Method("p-tuning", "P_TUNING", 1e-3, "Liu et al. 2021, arXiv:2103.10385; the rate of peft's example", 20),
        Method("llama-adapter", "ADAPTION_PROMPT", 9e-3, "Zhang et al. 2023, arXiv:2303.16199: 10 tokens in each of all"
               " layers but the first two"),
        Method(FULL, "", 2e-5, "all weights; the rate of TRL's SFTTrainer", objectives=_OF_ANSWERS),
        Method(CLASSIFIER, "", 5e-5, "all weights of an encoder; batch and rate of Devlin et al. 2019,"
               " arXiv:1810.04805", objectives=(CLASSIFY,), extra="local"),
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Size:
    """Models of up to ``most`` parameters: rank of a LoRA, by what to multiply rates, rows at once on a GPU."""

    most: float
    rank: int
    rate: float
    rows: int


SIZES = (
    # Small models have little to spare below the rank, and bear the rate of transformers' own Trainer (5e-5) in full.
    Size(1.5e9, 16, 1.0, 8),
    Size(15e9, 16, 1.0, 4),
    # Dettmers et al. 2023, table 9: half the rate from 33 billion parameters on.
    Size(math.inf, 16, 0.5, 1),
)
_SMALL_FULL = 2.5
# What is learned from preferences starts from a model that answers already: rates of TRL's DPO, KTO and Reward
# trainers, and of Hong et al. 2024 (arXiv:2403.07691) for ORPO; with an adapter ten times as much ("LoRA Without
# Regret", Schulman et al. 2025).
_RATES = {DPO: 1e-6, ORPO: 8e-6, KTO: 1e-6, REWARD: 1e-5}
_OF_AN_ADAPTER = 10.0
# A classifier ends earlier, once it gains nothing.
_EPOCHS = {SFT: 3.0, DPO: 1.0, ORPO: 1.0, KTO: 1.0, REWARD: 1.0, CLASSIFY: 10.0}
# Dettmers et al. 2023: 16 rows a step up to 13 billion parameters.
_ROWS_A_STEP = 16
# So many tokens are read at once on a GPU, so that long rows come in smaller batches.
_TOKENS_AT_ONCE = 16_384


@dataclass(frozen=True, slots=True)
class Numbers:
    """What a training is made with. ``steps`` 0: as many as ``epochs`` take. ``batch`` rows make one step,
    ``rows_at_once`` of them are in memory together."""

    rate: float
    epochs: float
    steps: int
    batch: int
    rows_at_once: int
    rank: int
    alpha: int
    dropout: float
    tokens: int
    warmup: float
    seed: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def checked(method: str, objective: str) -> Method:
    """Return a method. Raises :class:`SettingError` for one that is not there, or not made for the objective."""
    found = METHODS.get(method)
    if found is None:
        raise SettingError("No method %(name)r; there are: %(names)s", name=method, names=", ".join(METHODS))
    if objective not in OBJECTIVES:
        raise SettingError("No objective %(name)r; there are: %(names)s", name=objective, names=", ".join(OBJECTIVES))
    if objective not in found.objectives:
        able = [one.name for one in METHODS.values() if objective in one.objectives]
        raise SettingError(
            "The method %(method)s cannot be trained with %(objective)s; methods that can: %(names)s",
            method=method,
            objective=objective,
            names=", ".join(able),
        )
    return found


def numbers_for(
    method: str, objective: str, parameters: float, longest: int, gpu: bool, given: Mapping[str, Any]
) -> Numbers:
    """Return the numbers of a training: those ``given`` (by the fields of :class:`Numbers`), the others by default.

    ``parameters`` of the model and ``longest`` row in tokens. Raises :class:`SettingError` as :func:`checked`.
    """
    way = checked(method, objective)
    size = next(size for size in SIZES if parameters <= size.most)
    rate = _rate(way, objective, size)
    at_once = max(1, min(size.rows, _TOKENS_AT_ONCE // max(longest, 1))) if gpu else 1
    # The loss of KTO compares rows with others of the same batch.
    at_once = max(at_once, 2) if objective == KTO else at_once
    rank = size.rank if way.peft == "LORA" else 0
    begun = Numbers(
        rate=round(rate * size.rate, 10),
        epochs=_EPOCHS[objective],
        steps=0,
        batch=max(_ROWS_A_STEP if gpu else _ROWS_A_STEP // 2, at_once),
        rows_at_once=at_once,
        rank=rank,
        alpha=2 * rank,
        dropout=0.05 if rank else 0.0,
        tokens=10 if method == "llama-adapter" else way.tokens,
        warmup=0.03,
        seed=42,
    )
    if method == CLASSIFIER:
        # Texts are short, and an encoder is small.
        begun = replace(begun, batch=_ROWS_A_STEP, rows_at_once=_ROWS_A_STEP, warmup=0.1)
    chosen = replace(begun, **{name: value for name, value in given.items() if value is not None})
    if "rank" in given and "alpha" not in given:
        chosen = replace(chosen, alpha=2 * chosen.rank)
    return replace(chosen, rows_at_once=min(chosen.rows_at_once, max(chosen.batch, 2 if objective == KTO else 1)))


def _rate(way: Method, objective: str, size: Size) -> float:
    if objective in _RATES:
        return _RATES[objective] * (1.0 if way.name == FULL else _OF_AN_ADAPTER)
    return way.rate * (_SMALL_FULL if way.name == FULL and size is SIZES[0] else 1.0)
