"""The same training by other trainers: what to type, with every number and column that this one would use.

Each is a script for a shell. What a trainer reads beside the command, the script writes to a file first.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import Any

from labeler import strictjson
from labeler.backends.local.cards import REWARD
from labeler.errors import SettingError
from labeler.export.splits import TRAIN, VALIDATION
from labeler.training.methods import DPO, FULL, KTO, QLORA, SFT
from labeler.training.sets import TrainingSet

_LORA = ("lora", QLORA, FULL)
_TRL = {SFT: "sft", DPO: "dpo", KTO: "kto", REWARD: "reward"}


def printed(trainer: str, plan: Mapping[str, Any], data: TrainingSet, out: str) -> str:
    """Return the script of another trainer for a plan with its numbers; it leaves the model in the folder ``out``.

    Raises :class:`SettingError` for a trainer that is not known, or that has not the method, objective or format.
    """
    return _able(trainer, plan["method"])(plan, data, out) + "\n"


def check(trainer: str, method: str) -> None:
    """Raise :class:`SettingError` for a trainer that is not known, or has not the method."""
    _able(trainer, method)


def _able(trainer: str, method: str) -> Callable[[Mapping[str, Any], TrainingSet, str], str]:
    found = TRAINERS.get(trainer)
    if found is None:
        raise SettingError("No trainer %(name)r; there are: %(names)s", name=trainer, names=", ".join(TRAINERS))
    if method not in _LORA:
        raise SettingError(
            "The command is printed for the methods %(names)s; %(method)s is trained here", names=", ".join(_LORA),
            method=method,
        )  # fmt: skip
    return found


def _trl(plan: Mapping[str, Any], data: TrainingSet, out: str) -> str:
    n, objective = plan["numbers"], plan["objective"]
    if objective not in _TRL:
        raise _cannot("trl", "objective", objective)
    options: dict[str, Any] = {
        "model_name_or_path": plan["base"],
        "dataset_name": data.folder,
        "max_length": plan["max_length"],
        "learning_rate": f"{n['rate']:g}",
        **({"max_steps": n["steps"]} if n["steps"] else {"num_train_epochs": f"{n['epochs']:g}"}),
        "per_device_train_batch_size": n["rows_at_once"],
        "gradient_accumulation_steps": max(1, n["batch"] // n["rows_at_once"]),
        "warmup_steps": int(n["warmup"] * plan["total"]),
        "seed": n["seed"],
        "logging_steps": 10,
        "output_dir": out,
    }
    if VALIDATION in data.files:
        options |= {"dataset_test_split": VALIDATION, "eval_strategy": "epoch"}
    if objective == SFT and data.manifest.get("format") == "openai":
        # Their loss is on all turns else; rows of prompt and completion learn the answer alone by themselves.
        options["assistant_only_loss"] = "true"
    flags = []
    if plan["method"] != FULL:
        flags = ["use_peft"]
        options |= {"lora_r": n["rank"], "lora_alpha": n["alpha"], "lora_dropout": n["dropout"]}
        options["lora_target_modules"] = "all-linear"
        options |= {"lora_task_type": "SEQ_CLS"} if objective == REWARD else {}
    if plan["method"] == QLORA:
        flags += ["load_in_4bit", "use_bnb_nested_quant"]
        options |= {"bnb_4bit_quant_type": "nf4", "optim": "paged_adamw_32bit"}
    words = [f"--{name} {shlex.quote(str(value))}" for name, value in options.items()]
    return " \\\n  ".join([f"trl {_TRL[objective]}", *words, *(f"--{flag}" for flag in flags)])


def _llamafactory(plan: Mapping[str, Any], data: TrainingSet, out: str) -> str:
    n = plan["numbers"]
    _check_messages("llamafactory", plan, data)
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    shape = {"formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": {**tags, "system_tag": "system"}}
    about = {f"labeler_{split}": {"file_name": str(path.resolve()), **shape} for split, path in data.files.items()}
    settings: dict[str, Any] = {
        "model_name_or_path": plan["base"],
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "full" if plan["method"] == FULL else "lora",
        "dataset_dir": ".",
        "dataset": f"labeler_{TRAIN}",
        **({"eval_dataset": f"labeler_{VALIDATION}", "eval_strategy": "epoch"} if VALIDATION in data.files else {}),
        # It trains on all answers of a conversation, unless it is told to learn the last one.
        "mask_history": True,
        "cutoff_len": plan["max_length"],
        **_steps(n, "num_train_epochs"),
        **_numbers(plan),
        "per_device_train_batch_size": n["rows_at_once"],
        "bf16": True,
        "output_dir": out,
    }
    if plan["method"] != FULL:
        settings |= {"lora_rank": n["rank"], "lora_alpha": n["alpha"], "lora_dropout": n["dropout"]}
        settings["lora_target"] = "all"
    if plan["method"] == QLORA:
        settings |= {"quantization_bit": 4, "quantization_method": "bnb", "double_quantization": True}
        settings["optim"] = "paged_adamw_32bit"
    # Without a template it takes that of the model's own tokenizer, as here.
    files = [
        _file("dataset_info.json", strictjson.dumps(about, indent=1, separators=(",", ": "))),
        _file("labeler.yaml", _yaml(settings)),
    ]
    return "\n".join([*files, "llamafactory-cli train labeler.yaml"])


def _axolotl(plan: Mapping[str, Any], data: TrainingSet, out: str) -> str:
    n, pairs = plan["numbers"], plan["objective"] == DPO and data.objective == DPO
    if pairs:
        columns = {"field_messages": "prompt", "field_chosen": "chosen", "field_rejected": "rejected"}
        rows = {"type": "chat_template.default", **columns}
    else:
        _check_messages("axolotl", plan, data)
        rows = {"type": "chat_template", "field_messages": "messages"}
    sets = {
        split: [{"path": str(path.resolve()), "ds_type": "json", "split": "train", **rows}]
        for split, path in data.files.items()
    }
    settings: dict[str, Any] = {
        "base_model": plan["base"],
        "chat_template": "tokenizer_default",
        **({"rl": "dpo"} if pairs else {}),
        "datasets": sets[TRAIN],
        **({"test_datasets": sets[VALIDATION]} if VALIDATION in sets else {}),
        "sequence_len": plan["max_length"],
        **_steps(n, "num_epochs"),
        **_numbers(plan),
        "micro_batch_size": n["rows_at_once"],
        "bf16": "auto",
        "optimizer": "paged_adamw_32bit" if plan["method"] == QLORA else "adamw_torch",
        "output_dir": out,
    }
    if plan["method"] != FULL:
        settings |= {"adapter": plan["method"], "lora_r": n["rank"], "lora_alpha": n["alpha"]}
        settings |= {"lora_dropout": n["dropout"], "lora_target_linear": True}
    if plan["method"] == QLORA:
        settings["load_in_4bit"] = True
    return "\n".join([_file("labeler.yaml", _yaml(settings)), "axolotl train labeler.yaml"])


TRAINERS: dict[str, Callable[[Mapping[str, Any], TrainingSet, str], str]] = {
    "trl": _trl,
    "llamafactory": _llamafactory,
    "axolotl": _axolotl,
}


def _steps(n: Mapping[str, Any], epochs: str) -> dict[str, Any]:
    return {"max_steps": n["steps"]} if n["steps"] else {epochs: n["epochs"]}


def _numbers(plan: Mapping[str, Any]) -> dict[str, Any]:
    n = plan["numbers"]
    return {
        "learning_rate": n["rate"],
        "gradient_accumulation_steps": max(1, n["batch"] // n["rows_at_once"]),
        "warmup_steps": int(n["warmup"] * plan["total"]),
        "seed": n["seed"],
    }


def _check_messages(trainer: str, plan: Mapping[str, Any], data: TrainingSet) -> None:
    if plan["objective"] != SFT:
        raise _cannot(trainer, "objective", plan["objective"])
    if data.manifest.get("format") != "openai":
        raise _cannot(trainer, "format", str(data.manifest.get("format")))


def _cannot(trainer: str, what: str, value: str) -> SettingError:
    return SettingError(
        "The command for %(trainer)s cannot be printed for the %(what)s %(value)s; export the task in the format"
        " openai, or train here",
        trainer=trainer,
        what=what,
        value=value,
    )


def _file(name: str, text: str) -> str:
    return f"cat > {name} <<'END_OF_FILE'\n{text}\nEND_OF_FILE"


def _yaml(settings: Mapping[str, Any]) -> str:
    """Return settings as YAML; JSON in place of a value is YAML, too."""
    return "\n".join(f"{name}: {_value(value)}" for name, value in settings.items())


def _value(value: Any) -> str:
    if isinstance(value, float):
        # YAML takes 2e-05 for a text.
        return f"{value:g}" if value >= 1e-4 else f"{value:.12f}".rstrip("0")
    return strictjson.dumps(value, separators=(", ", ": "))
