"""Formats that hold conversations, for those who fine-tune language models."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from operator import itemgetter
from typing import Any, ClassVar

from labeler.export.files import AXOLOTL, DATASET_INFO, ExportFile
from labeler.export.formats.base import Context, ExportRow, TrainingFormat, json_file, json_line, messages_json, yaml
from labeler.export.splits import TRAIN, VALIDATION
from labeler.records import Message
from labeler.sentence import N_

# LLaMA-Factory forgets its own default of every column and tag as soon as one is named, so all of them are.
_TAGS = {"observation_tag": "observation", "function_tag": "function_call"}
_OF_MESSAGES = {
    "role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant",
    "system_tag": "system", **_TAGS,
}  # fmt: skip
_OF_SHAREGPT = {
    "role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt", "system_tag": "system",
    **_TAGS,
}  # fmt: skip
_TURNS = {"user": "human", "assistant": "gpt"}


class Messages(TrainingFormat):
    """{"messages": [system, user, ..., assistant]}, with role and content and nothing else."""

    name = "messages"
    suffix = ".jsonl"
    description = N_("Chat messages with role and content alone, for TRL and most other trainers")
    marked: ClassVar[Mapping[str, Any]] = {}
    """What tells a trainer that the answer of an example in a prompt is not to be learned: only the last one is."""

    def row(self, row: ExportRow, context: Context) -> str:
        asked = [{**m, **self.marked} if m["role"] == "assistant" else m for m in row.prompt]
        return f'{{"messages":{messages_json([*asked, _answer(row)])}}}\n'


class OpenAI(Messages):
    """As :class:`Messages`, but answers of examples have the weight 0, as OpenAI's fine-tuning reads it."""

    name = "openai"
    description = N_("Chat messages, for OpenAI fine-tuning and everything that reads its files")
    marked = {"weight": 0}


class TRL(TrainingFormat):
    """{"prompt": [...], "completion": [...]}: TRL's conversational prompt-completion, which trains the answer only."""

    name = "trl"
    suffix = ".jsonl"
    description = N_("Prompt and completion as messages, for the SFTTrainer of TRL")

    def row(self, row: ExportRow, context: Context) -> str:
        return f'{{"prompt":{messages_json(row.prompt)},"completion":{messages_json([_answer(row)])}}}\n'


class Alpaca(TrainingFormat):
    """{"system", "instruction", "input", "output", "history"}: the system message, nothing, the review, the answer.

    The instruction is empty, because trainers put it and the input into one user's message: that one must be what is
    served. ``history`` has the examples of the prompt, as pairs of question and answer. ``dataset_info.json`` beside
    the rows tells LLaMA-Factory which column is what.
    """

    name = "alpaca"
    suffix = ".jsonl"
    description = N_("System, instruction, input and output, for trainers that read the Alpaca form")

    def row(self, row: ExportRow, context: Context) -> str:
        system, turns = _parted(row)
        said = [text for _, text in turns]
        history = [said[n : n + 2] for n in range(0, len(said) - 1, 2)]
        asked = {"system": system, "instruction": "", "input": said[-1]}
        return json_line({**asked, "output": row.answer, "history": history})

    def about(self, files: Mapping[str, ExportFile], context: Context) -> Mapping[str, str]:
        columns = {
            "prompt": "instruction", "query": "input", "response": "output", "history": "history", "system": "system",
        }  # fmt: skip
        return _llama_factory(files, context, formatting="alpaca", columns=columns)


class ShareGPT(TrainingFormat):
    """{"conversations": [{"from", "value"}], "system"}, with ``dataset_info.json`` for LLaMA-Factory."""

    name = "sharegpt"
    suffix = ".jsonl"
    description = N_("Conversations with from and value, for LLaMA-Factory and others that read the ShareGPT form")

    def row(self, row: ExportRow, context: Context) -> str:
        system, turns = _parted(row)
        said = [{"from": _TURNS[role], "value": text} for role, text in (*turns, ("assistant", row.answer))]
        return json_line({"conversations": said, "system": system})

    def about(self, files: Mapping[str, ExportFile], context: Context) -> Mapping[str, str]:
        columns = {"messages": "conversations", "system": "system"}
        return _llama_factory(files, context, formatting="sharegpt", columns=columns, tags=_OF_SHAREGPT)


class LlamaFactory(Messages):
    """As :class:`Messages`, with ``dataset_info.json``.

    Its ``formatting`` is not "openai": under that name LLaMA-Factory adds a line of its own to every system message.
    """

    name = "llamafactory"
    description = N_("A folder that LLaMA-Factory takes as its dataset_dir")

    def about(self, files: Mapping[str, ExportFile], context: Context) -> Mapping[str, str]:
        return _llama_factory(
            files, context, formatting="sharegpt", columns={"messages": "messages"}, tags=_OF_MESSAGES
        )


class Axolotl(Messages):
    """As :class:`Messages`, with a block of YAML; answers of examples are marked, and not trained."""

    name = "axolotl"
    description = N_("A folder that axolotl trains from, with a block of YAML that says how")
    marked = {"train": False}

    def about(self, files: Mapping[str, ExportFile], context: Context) -> Mapping[str, str]:
        def read(split: str) -> list[dict[str, Any]]:
            how = {
                "ds_type": "json", "type": "chat_template", "field_messages": "messages",
                "roles_to_train": ["assistant"], "message_field_training": "train", "train_on_eos": "turn",
            }  # fmt: skip
            return [{"path": files[split].name, **how}] if split in files else []

        block = {"datasets": read(TRAIN), "test_datasets": read(VALIDATION), "val_set_size": 0.0}
        said = "# Paste this into your configuration, and write the folder before each path.\n"
        return {AXOLOTL: said + yaml({key: value for key, value in block.items() if value != []})}


def _answer(row: ExportRow) -> Message:
    return {"role": "assistant", "content": row.answer}


def _parted(row: ExportRow) -> tuple[str, list[tuple[str, str]]]:
    """Return the system message of a prompt, empty for none, and its turns as role and text.

    Messages of one role behind each other are one turn: these trainers leave out a row without a word otherwise.
    """
    turns: list[tuple[str, str]] = []
    system = ""
    for role, messages in groupby(row.prompt, itemgetter("role")):
        said = "\n\n".join(message["content"] for message in messages)
        if role == "system":
            system = said
        else:
            turns.append((role, said))
    return system, turns


def _llama_factory(files: Mapping[str, ExportFile], context: Context, **read: Any) -> Mapping[str, str]:
    sets = {f"{context.task.name}_{split}": {"file_name": file.name, **read} for split, file in files.items()}
    return {DATASET_INFO: json_file(sets)}
