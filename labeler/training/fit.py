"""Models that write or judge answers, trained with peft and trl; :mod:`labeler.training.work` begins it.

This module loads torch, transformers, peft and trl, so it is imported where a training begins and nowhere else.
"""

from __future__ import annotations

import importlib
import logging
import math
import os
import random
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

# ORPO stands in trl.experimental, which says so on each import.
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch
from transformers import TrainerCallback

from labeler.backends.local.cards import REWARD, trained
from labeler.backends.local.loading import (
    CUDA,
    NF4,
    LoadOptions,
    bits,
    choose_device,
    context_of,
    dtype_on,
    explain,
    located,
)
from labeler.errors import LabelerError, SettingError
from labeler.export.splits import TRAIN, VALIDATION
from labeler.sentence import N_
from labeler.training.cards import Outcome, write_card
from labeler.training.folders import CHECKPOINTS, SAMPLES, WHOLE, Reports, Training
from labeler.training.methods import DPO, FULL, KTO, METHODS, ORPO, PREFIX, QLORA, SFT, Numbers, numbers_for
from labeler.training.rows import Served, fitting
from labeler.training.sets import Row, TrainingSet, answered, read_planned

datasets: Any = importlib.import_module("datasets")
peft: Any = importlib.import_module("peft")
transformers: Any = importlib.import_module("transformers")
trl: Any = importlib.import_module("trl")
log = logging.getLogger(__name__)
_REPORTS, _CHECKPOINTS, _SAMPLES, _LONGEST_SAMPLE = 200, 10, 3, 256
# The loss in validation takes about such a share of a training: to look at a row takes nearly as long as to learn from
# it, where an adapter is small. Fewer rows than these would say nothing; then there are fewer looks.
_SHARE_TO_LOOK, _FEWEST = 0.1, 16
# Bytes of a parameter: 4 bits and their scales; 16 bits on a card; 32 elsewhere; with gradient and both of AdamW's.
_BYTES = {QLORA: 0.6, CUDA: 2.0, "else": 4.0, FULL: 16.0}


@dataclass(frozen=True)
class Base:
    """The model that is trained, before its weights are loaded. ``source`` is how everything of it is fetched."""

    name: str
    device: torch.device
    source: Mapping[str, Any]
    config: Any
    tokenizer: Any
    parameters: int

    @property
    def gpu(self) -> bool:
        return self.device.type == CUDA


def prepared(plan: Mapping[str, Any], instance: Path) -> dict[str, Any]:
    """Return what a plan comes to on a machine with a GPU: its numbers and the longest row, in tokens.

    Raises :class:`LabelerError` as :func:`labeler.training.work.fit`.
    """
    base, data = _base(plan, instance, here=False), read_planned(plan)
    base = replace(base, device=torch.device(CUDA))
    return _resolved(plan, base, data, Served(base.tokenizer))[0]


def _base(plan: Mapping[str, Any], instance: Path, here: bool = True) -> Base:
    """Find the model that is to be trained. Raises :class:`SettingError` for one that cannot be."""
    device = choose_device(plan.get("device") or "auto")
    if here and plan["method"] == QLORA and device.type != CUDA:
        raise SettingError(
            "The method qlora needs a GPU that torch reaches by CUDA, and there is none here; take the method lora"
        )
    card = trained(instance, plan["base"])
    if card is not None and card.adapter:
        raise SettingError(
            "%(name)s is an adapter; name the model that it belongs to: %(base)s", name=plan["base"], base=card.base
        )
    options = located(LoadOptions(plan["base"] if card is None else str(card.folder)))
    if options.gguf_file:
        raise SettingError(
            "%(model)s is a GGUF file, whose weights cannot be trained; give the folder or hub id of its safetensors",
            model=plan["base"],
        )
    source: dict[str, Any] = {"trust_remote_code": False, "token": os.environ.get("HF_TOKEN") or False}
    transformers.utils.logging.disable_progress_bar()
    try:
        config = transformers.AutoConfig.from_pretrained(options.model_id, **source)
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(options.model_id, **source)
        with torch.device("meta"):
            parameters = transformers.AutoModelForCausalLM.from_config(config).num_parameters()
    except LabelerError:
        raise
    except Exception as error:
        explain(error, options, device.type)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return Base(options.model_id, device, source, config, tokenizer, parameters)


def _resolved(
    plan: Mapping[str, Any], base: Base, data: TrainingSet, served: Served
) -> tuple[dict[str, Any], dict[str, list[Row]]]:
    """Return the plan with its numbers and its longest row, and the rows by split.

    What was resolved once stays: what goes on after a kill is the same training, on whatever machine.
    """
    context = context_of(_Described(base.config), base.tokenizer) - METHODS[plan["method"]].tokens
    rows: dict[str, list[Row]] = {}
    left_out: dict[str, list[int]] = {}
    longest = 0
    for split in (TRAIN, VALIDATION):
        rows[split], left_out[split], most = fitting(served, data.rows(split), plan.get("most"), context, split)
        longest = max(longest, most)
    if plan.get("numbers"):
        rows[VALIDATION] = _drawn(rows[VALIDATION], plan["validation"]["rows"], plan["numbers"]["seed"])
        return dict(plan), rows
    numbers = numbers_for(
        plan["method"], plan["objective"], base.parameters, longest, base.gpu, plan.get("given") or {}
    )
    total, there = _total(numbers, len(rows[TRAIN])), len(rows[VALIDATION])
    looks, most = _looks(total * numbers.batch, there)
    rows[VALIDATION] = _drawn(rows[VALIDATION], most, numbers.seed)
    found = {**plan, "numbers": numbers.to_json(), "max_length": longest, "left_out": left_out}
    found["validation"] = {"rows": len(rows[VALIDATION]), "of": there, "every": max(1, total // looks)}
    return {**found, "parameters": base.parameters, "total": total}, rows


def _looks(learned: int, there: int) -> tuple[int, int]:
    """Return how often the loss in validation is measured, and on how many rows, where so many are learned from."""
    allowed, least = int(_SHARE_TO_LOOK * learned), max(1, min(_FEWEST, there))
    looks = min(_CHECKPOINTS, max(1, allowed // least))
    return looks, max(least, allowed // looks)


def _drawn(rows: list[Row], most: int, seed: int) -> list[Row]:
    """Return at most so many rows, in their order; the same ones for the same seed."""
    chosen = sorted(random.Random(seed).sample(range(len(rows)), min(most, len(rows))))
    return [rows[n] for n in chosen]


@dataclass(frozen=True)
class _Described:
    """A model of which only the config is there."""

    config: Any


def _total(numbers: Numbers, rows: int) -> int:
    """Return how many steps a training has."""
    batches = math.ceil(rows / numbers.rows_at_once)
    return numbers.steps or math.ceil(numbers.epochs * max(1, math.ceil(batches / _accumulated(numbers))))


def _accumulated(numbers: Numbers) -> int:
    return max(1, numbers.batch // numbers.rows_at_once)


class Fit:
    """One training on its way."""

    def __init__(self, training: Training, tell: Callable[[str], None]) -> None:
        self.training, self.tell = training, tell
        self.data = read_planned(training.plan)
        self.base = _base(training.plan, training.folder.parent.parent)
        self.served = Served(self.base.tokenizer)
        self.plan, self.rows = _resolved(training.plan, self.base, self.data, self.served)
        self.numbers = Numbers(**self.plan["numbers"])
        training.change(self.plan)

    def run(self) -> bool:
        """Return whether it came to its end."""
        _check_memory(self.base, self.plan)
        found = self.training.checkpoint()
        self.training.rewind(found[1] if found else -1)
        reporter = _Reporter(self.training, self.tell, self._sampler(), self.plan["total"])
        with warnings.catch_warnings():
            # What its makers tell each other of the next version of a library is nothing a person can act on.
            warnings.simplefilter("ignore")
            trainer = self._trainer(reporter)
            trainer.train(resume_from_checkpoint=str(found[0]) if found else None)
        if reporter.stopped:
            return False
        self._leave(trainer.model)
        return True

    def _trainer(self, reporter: _Reporter) -> Any:
        datasets.disable_progress_bars()
        transformers.utils.logging.set_verbosity_error()
        transformers.set_seed(self.numbers.seed)
        objective, tokenizer = self.plan["objective"], self.base.tokenizer
        # Whoever asks this tokenizer for the ids of messages gets them as they are served.
        tokenizer.apply_chat_template = self.served.apply
        kinds: dict[str, tuple[Any, Any]] = {
            SFT: (trl.SFTTrainer, trl.SFTConfig),
            DPO: (trl.DPOTrainer, trl.DPOConfig),
            KTO: (trl.KTOTrainer, trl.KTOConfig),
            REWARD: (trl.RewardTrainer, trl.RewardConfig),
        }
        kind, config = _orpo() if objective == ORPO else kinds[objective]
        sets = {split: self._set(rows) for split, rows in self.rows.items() if rows}
        model = self._model()
        made = kind(
            model=model,
            args=config(**self._arguments()),
            train_dataset=sets[TRAIN],
            eval_dataset=sets.get(VALIDATION),
            processing_class=tokenizer,
            peft_config=self._peft(model),
            callbacks=[reporter],
        )
        # It prints every report as it is.
        made.remove_callback(transformers.PrinterCallback)
        if METHODS[self.plan["method"]].peft == "ADAPTION_PROMPT":
            # peft keeps the forward as it was before the trainer put its loss into it.
            made.model.base_model.forward = made.model.get_base_model().forward
        return made

    def _set(self, rows: Sequence[Row]) -> Any:
        if self.plan["objective"] != ORPO:
            return datasets.Dataset.from_list(list(rows))
        # Its trainer reads texts, and tokenizes them in its own way: it is given both, and keeps ours.
        texts = {"prompt": "", "chosen": "", "rejected": ""}
        return datasets.Dataset.from_list([{**texts, **self.served.pair(row)} for row in rows])

    def _arguments(self) -> dict[str, Any]:
        n, gpu, total = self.numbers, self.base.gpu, self.plan["total"]
        every = max(1, total // _CHECKPOINTS)
        return {
            "output_dir": str(self.training.folder / CHECKPOINTS),
            "per_device_train_batch_size": n.rows_at_once,
            "per_device_eval_batch_size": n.rows_at_once,
            "gradient_accumulation_steps": _accumulated(n),
            "learning_rate": n.rate,
            "num_train_epochs": n.epochs,
            "max_steps": n.steps or -1,
            "warmup_steps": int(n.warmup * total),
            "logging_steps": max(1, total // _REPORTS),
            "logging_first_step": True,
            "save_strategy": "steps",
            "save_steps": every,
            # A kill may fall into the writing of one: the one before it stays.
            "save_total_limit": 2,
            "eval_strategy": "steps" if self.rows[VALIDATION] else "no",
            "eval_steps": self.plan["validation"]["every"],
            "report_to": "none",
            "disable_tqdm": True,
            "seed": n.seed,
            "bf16": gpu and dtype_on(self.base.device) is torch.bfloat16,
            "use_cpu": self.base.device.type == "cpu",
            "dataloader_pin_memory": gpu,
            # Memory for time; and what prefix tuning trains would be lost by it.
            "gradient_checkpointing": gpu and self.plan["method"] != PREFIX,
            "optim": "paged_adamw_32bit" if self.plan["method"] == QLORA else "adamw_torch",
            # The longest row there is: nothing is cut, and nothing left out.
            "max_length": self.plan["max_length"],
        }

    def _model(self) -> Any:
        base, method = self.base, self.plan["method"]
        how: dict[str, Any] = {"dtype": torch.float32 if method == FULL else dtype_on(base.device)}
        if method == QLORA:
            how["quantization_config"] = bits(NF4, base.device)
        kind: Any = transformers.AutoModelForCausalLM
        if self.plan["objective"] == REWARD:
            kind, how["num_labels"] = transformers.AutoModelForSequenceClassification, 1
        try:
            model = kind.from_pretrained(
                base.name, **base.source, **how, use_safetensors=True, device_map={"": str(base.device)}
            )
        except Exception as error:
            explain(error, LoadOptions(base.name), base.device.type)
        model.config.pad_token_id = base.tokenizer.pad_token_id
        return model

    def _peft(self, model: Any) -> Any:
        """Return what peft makes of the method; None where all weights are trained."""
        method, n = METHODS[self.plan["method"]], self.numbers
        if method.name == FULL:
            return None
        task = "SEQ_CLS" if self.plan["objective"] == REWARD else "CAUSAL_LM"
        if method.peft == "LORA":
            return peft.LoraConfig(
                task_type=task, r=n.rank, lora_alpha=n.alpha, lora_dropout=n.dropout, target_modules="all-linear"
            )
        if method.peft == "IA3":
            return _ia3(model, task)
        if method.peft == "ADAPTION_PROMPT":
            return _llama_adapter(model, task, n)
        kinds: dict[str, Any] = {
            "PREFIX_TUNING": peft.PrefixTuningConfig,
            "PROMPT_TUNING": peft.PromptTuningConfig,
            "P_TUNING": peft.PromptEncoderConfig,
        }
        hidden = (
            {"encoder_hidden_size": model.config.get_text_config().hidden_size} if method.peft == "P_TUNING" else {}
        )
        return kinds[method.peft](task_type=task, num_virtual_tokens=n.tokens, **hidden)

    def _sampler(self) -> Callable[[Any, int], None]:
        """Return what lets a model answer a few rows, those of validation where there are any, and reports it."""
        if self.plan["objective"] == REWARD:
            return lambda model, step: None
        rows = (self.rows[VALIDATION] or self.rows[TRAIN])[:_SAMPLES]
        ends = list(dict.fromkeys([*self.served.end[-1:], *self.served.chat.end_ids]))
        most = min(
            max((len(self.served.chat.answer_ids(answered(row))) for row in rows), default=1) + 8, _LONGEST_SAMPLE
        )
        config = transformers.GenerationConfig(
            max_new_tokens=most, do_sample=False, eos_token_id=ends, pad_token_id=self.base.tokenizer.pad_token_id
        )

        def sample(model: Any, step: int) -> None:
            teaches = model.training
            model.eval()
            for row in rows:
                ids = torch.tensor([self.served.prompt(row["prompt"])], device=self.base.device)
                with torch.no_grad():
                    found = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)
                text = self.base.tokenizer.decode(found[0, ids.shape[1] :], skip_special_tokens=True)
                line = {"step": step, "asked": row["prompt"][-1]["content"], "expected": answered(row)}
                self.training.report(SAMPLES, line | {"answered": _sayable(text)})
            model.train(teaches)

        return sample

    def _leave(self, model: Any) -> None:
        """Write what was trained, then its card: where that stands, all of it does."""
        folder, new = self.training.folder, self.training.folder / "new"
        shutil.rmtree(new, ignore_errors=True)
        if self.plan["method"] == FULL:
            # As precise as they came.
            model.to(getattr(self.base.config, "dtype", None) or torch.float32)
            self.served.chat.tokenizer.save_pretrained(new)
        model.save_pretrained(new)
        for path in sorted(new.iterdir()):
            # peft leaves a card of its own; ours comes with it.
            if path.name != "README.md":
                path.replace(folder / path.name)
        shutil.rmtree(new)
        trains = sum(weights.numel() for weights in model.parameters() if weights.requires_grad)
        write_card(self.training, self.data, Outcome(trains, self.base.device.type))
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)


def _sayable(text: str) -> str:
    # Half of a character may be all that a token spelled.
    return text.encode("utf-8", "replace").decode("utf-8")


def _orpo() -> tuple[Any, Any]:
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    class Orpo(ORPOTrainer):
        """Keeps the ids that rows bring with them."""

        def tokenize_row(self, feature: dict[str, Any], model: Any = None) -> dict[str, Any]:
            return {name: value for name, value in feature.items() if isinstance(value, list)}

    return Orpo, ORPOConfig


def _ia3(model: Any, task: str) -> Any:
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    found = [name for name in ("k_proj", "v_proj", "down_proj") if name in names]
    # Of other models peft knows the names, or says that it does not.
    chosen = {"target_modules": found, "feedforward_modules": found[2:]} if len(found) == 3 else {}
    return peft.IA3Config(task_type=task, **chosen)


def _llama_adapter(model: Any, task: str, numbers: Numbers) -> Any:
    from peft.tuners.adaption_prompt.config import TRANSFORMERS_MODEL_CONFIG as KNOWN

    kind = model.config.model_type
    if kind not in KNOWN:
        raise SettingError(
            "The method llama-adapter is made for models of the kinds %(names)s, and this one is of the kind %(kind)s;"
            " take the method lora",
            names=", ".join(KNOWN),
            kind=kind,
        )
    layers = max(1, model.config.num_hidden_layers - 2)
    return peft.AdaptionPromptConfig(task_type=task, adapter_len=numbers.tokens, adapter_layers=layers)


def _check_memory(base: Base, plan: Mapping[str, Any]) -> None:
    """Raise :class:`SettingError` where not even the weights and the logits of one batch can fit."""
    method, numbers = plan["method"], Numbers(**plan["numbers"])
    each = _BYTES.get(method) or _BYTES.get(base.device.type) or _BYTES["else"]
    tokens = numbers.rows_at_once * plan["max_length"]
    needed = base.parameters * each + tokens * base.config.get_text_config().vocab_size * 8
    there = _free(base.device)
    if there is None:
        log.warning("How much memory is free cannot be known here; the training begins without looking")
    elif needed > there:
        raise SettingError(
            N_(
                "%(model)s needs at least %(needed)s GB of memory by the method %(method)s, and %(there)s GB are free;"
                " take a smaller model, or the method lora or qlora"
            ),
            model=plan["base"],
            needed=f"{needed / 1e9:.1f}",
            method=method,
            there=f"{there / 1e9:.1f}",
        )


def _free(device: torch.device) -> int | None:
    """Return how many bytes are free on a device; None where that cannot be known."""
    if device.type == CUDA:
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        found = [line for line in Path("/proc/meminfo").read_text("ascii").splitlines() if "MemAvailable" in line]
        return int(found[0].split()[1]) * 1024
    except (OSError, IndexError, ValueError):
        return None


class _Reporter(TrainerCallback):
    """Writes down what a trainer says, marks whole checkpoints, and ends the training where somebody wants it to."""

    def __init__(
        self, training: Training, tell: Callable[[str], None], sample: Callable[[Any, int], None], total: int
    ) -> None:
        self.stopped = False
        self._training, self._reports, self._sample, self._total = training, Reports(training, tell), sample, total

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        if not state.global_step:
            self._sample(more["model"], 0)

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any) -> None:
        said = {name: value for name, raw in (logs or {}).items() if (value := _number(raw)) is not None}
        if {"loss", "eval_loss"} & said.keys():
            self._reports.say(state.global_step, self._total, said)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._training.stopping and state.global_step < state.max_steps:
            self.stopped = control.should_save = control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        (Path(args.output_dir) / f"checkpoint-{state.global_step}" / WHOLE).touch()
        self._sample(more["model"], state.global_step)


def _number(raw: Any) -> float | None:
    try:
        found = float(raw)
    except (TypeError, ValueError):
        return None
    return round(found, 6) if math.isfinite(found) and abs(found) > 1e-3 else found if math.isfinite(found) else None
