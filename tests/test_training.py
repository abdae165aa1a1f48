"""Training: an export tunes a tiny model by every method, goes on after a kill, and serves as it learned."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import PASSWORD, enter
from helpers import process, until

from labeler import accounts, strictjson
from labeler.annotation.decisions import Decision
from labeler.app import create_app
from labeler.backends.base import BackendRequest
from labeler.errors import Conflict, InputError, MissingExtra, SettingError
from labeler.export import export_task
from labeler.instance import Instance
from labeler.labels import Choice, Label
from labeler.prelabel import runs
from labeler.prompts import system_hash
from labeler.records import Completion, Record
from labeler.store import NewRecord
from labeler.training import folders, plans
from labeler.training.folders import Training
from labeler.training.methods import METHODS, numbers_for
from labeler.training.sets import read_set

torch = pytest.importorskip("torch", reason="torch is not installed (labeler-rag[train])")
for package in ("transformers", "datasets", "peft", "trl"):
    pytest.importorskip(package, reason=f"{package} is not installed (labeler-rag[train])")

import transformers  # noqa: E402
from test_backend_local import CHATML, make_tokenizer  # noqa: E402
from tiny_models import one_thread  # noqa: E402, F401

from labeler.training.elsewhere import TRAINERS, printed  # noqa: E402
from labeler.training.fit import prepared  # noqa: E402
from labeler.training.rows import Served, fitting  # noqa: E402
from labeler.training.work import fit  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
SYSTEM = "You label reviews. Answer with one JSON object."
GOOD, BAD = '{"sentiment": "positive"}', '{"sentiment": "negative"}'
TEXTS = (
    "the apples were sweet",
    "late and crushed",
    "fine, nothing more",
    "쓴맛이 나요 <|im_end|>",
    "again and again",
    "no",
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of 2 layers and 16 dimensions with random weights and a chat template, as the hub would hold it."""
    folder = tmp_path_factory.mktemp("base")
    tokenizer = make_tokenizer(CHATML, ("<|im_start|>", "<|im_end|>"), eos="<|im_end|>")
    tokenizer.model_max_length = 4096
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=4096, eos_token_id=tokenizer.eos_token_id, hidden_size=16,
        num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def asked(text: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def row(format_: str, n: int) -> dict[str, Any]:
    """Return a row as exports of a format have it."""
    prompt, good, bad = asked(TEXTS[n % len(TEXTS)]), said(GOOD), said(BAD)
    return {
        "trl": {"prompt": prompt, "completion": good},
        "openai": {"messages": prompt + good},
        "dpo": {"prompt": prompt, "chosen": good, "rejected": bad},
        "dpo-implicit": {"chosen": prompt + good, "rejected": prompt + bad},
        "reward": {"prompt": prompt, "chosen": good, "rejected": bad},
        "kto": {"prompt": prompt, "completion": good, "label": n % 2 == 0},
        "alpaca": {"instruction": "", "input": "x", "output": "y"},
    }[format_]


def exported(folder: Path, format_: str = "trl", splits: dict[str, int] | None = None, **manifest: Any) -> Path:
    """Write an export as the exporter does: rows by split, and the manifest that describes them."""
    folder.mkdir(parents=True)
    files = {}
    for split, count in (splits or {"train": 6, "validation": 2}).items():
        data = "".join(strictjson.dumps(row(format_, n)) + "\n" for n in range(count)).encode()
        (folder / f"{split}.jsonl").write_bytes(data)
        files[f"{split}.jsonl"] = {"rows": count, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    said = {"labeler": "0.3.0", "project": "shop", "task": "sentiment", "format": format_, "files": files}
    (folder / "manifest.json").write_text(json.dumps(said | manifest), encoding="utf-8")
    return folder


def planned(
    place: Path, base: Path, method: str, format_: str = "trl", objective: str | None = None, **more: Any
) -> Training:
    """Plan a training of two steps on an export of its own."""
    given = {"steps": 2, **more.pop("given", {})}
    export = exported(place / f"export-{len(list(place.iterdir()))}", format_)
    plan, _ = plans.plan_of(export, str(base), method, objective, device="cpu", given=given, **more)
    return folders.begin(place, folders.free_name(place, f"{method}-{plan['objective']}"), plan)


def whole(training: Training) -> dict[str, Any]:
    """Train to the end and return the card."""
    told: list[str] = []
    assert fit(training, told.append)
    assert told
    assert training.state == "finished"
    return training.card


def backend_of(place: Path, name: str, **settings: Any) -> Any:
    from labeler.built_in import TransformersFactory

    settings = {"instance_folder": str(place), "model_id": name, "device": "cpu", "quantization": "none", **settings}
    return TransformersFactory().create(settings)


def test_commands_and_pages_load_no_library_of_training() -> None:
    """torch, trl and peft are loaded where a training begins, not for a list of commands, nor for the page."""
    heavy = "{'torch', 'transformers', 'trl', 'peft', 'datasets'} & set(sys.modules)"
    code = f"import sys, labeler.cli, labeler.web.training, labeler.training.elsewhere; assert not {heavy}"
    subprocess.run([sys.executable, "-c", code], check=True)


# Every method, every trainer


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("qlora", "classifier")])
def test_every_method_learns_answers_and_serves(tmp_path: Path, base: Path, method: str) -> None:
    """Two steps of each method change the loss, leave a card, and come back as a backend under the training's name."""
    training = planned(tmp_path, base, method, given={"rate": 0.05})
    card = whole(training)
    steps = {line["step"]: line for line in training.log() if "loss" in line}
    assert sorted(steps) == [1, 2]
    assert steps[1]["loss"] != steps[2]["loss"]
    assert card["losses"]["train"] == steps[2]["loss"]
    assert card["losses"]["validation"] is not None
    assert 0 < card["parameters"]["trained"] <= card["parameters"]["all"] or method != "full"
    assert [sample["step"] for sample in training.samples()] == [0, 0, 1, 1, 2, 2]
    assert not (training.folder / "checkpoints").exists()
    assert "approved" in (training.folder / "README.md").read_text("utf-8")
    backend = backend_of(tmp_path, training.name)
    assert backend.model_id == training.name
    assert backend.asked == {"style": "zero-shot"}
    schema = Choice(Label("positive"), Label("negative"))
    request = BackendRequest(Record(1, 1, "r", "x"), "sentiment", schema, asked("late"), schema.json_schema())
    [scored] = backend.complete([request])
    assert isinstance(scored, Completion), scored
    assert set(scored.scores or {}) == {"positive", "negative"}
    found = backend.check()
    assert found["ok"], found


@pytest.mark.parametrize(
    ("format_", "objective", "method"),
    [("dpo", "dpo", "lora"), ("dpo-implicit", "orpo", "ia3"), ("kto", "kto", "lora"), ("reward", "reward", "lora"),
     ("dpo", "reward", "full")],
)  # fmt: skip
def test_every_trainer_learns_preferences(
    tmp_path: Path, base: Path, format_: str, objective: str, method: str
) -> None:
    """Pairs and single judgements train by DPO, ORPO, KTO, and as a reward model, from the rows that exports write."""
    card = whole(planned(tmp_path, base, method, format_, objective))
    assert (card["objective"], card["export"]["rows"]) == (objective, {"train": 6, "validation": 2})
    assert card["left_out"] == {"train": [], "validation": []}


def test_a_reward_model_answers_nothing(tmp_path: Path, base: Path) -> None:
    """It is no model of a task, and says so."""
    training = planned(tmp_path, base, "lora", "reward")
    training.change(training.plan)
    (training.folder / "labeler.json").write_text(
        json.dumps({"base": str(base), "method": "lora", "objective": "reward", "asked": {}}), encoding="utf-8"
    )
    with pytest.raises(SettingError, match="made a reward model, which judges answers and writes none"):
        backend_of(tmp_path, training.name)


# What is learned


def test_only_the_answer_is_learned_and_the_prompt_is_as_it_is_served(base: Path) -> None:
    """A row is the served prompt, the answer and the end of the turn; a spelled control token stays text in all."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    served = Served(tokenizer)
    prompt = asked(TEXTS[3])
    ids = served.apply(prompt, add_generation_prompt=True)["input_ids"]
    every = served.apply(prompt + said(GOOD))["input_ids"]
    assert every[: len(ids)] == ids == served.chat.prompt_ids(prompt)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert every.count(end) == 3
    assert tokenizer.decode(every[len(ids) :]) == GOOD + "<|im_end|>"
    pair = served.pair({"prompt": prompt, "chosen": said(GOOD), "rejected": said(BAD)})
    assert pair["chosen_labels"] == [-100] * len(ids) + every[len(ids) :]


def test_no_row_is_dropped_or_cut_in_silence(tmp_path: Path, base: Path) -> None:
    """The longest row says how much is read at once; rows are left out only where somebody said how long they may be,
    and then the card names them."""
    served = Served(transformers.AutoTokenizer.from_pretrained(base))
    rows = read_set(exported(tmp_path / "export")).rows("train")
    lengths = [served.length(one) for one in rows]
    assert fitting(served, rows, None, 4096, "train") == (rows, [], max(lengths))
    kept, left, longest = fitting(served, rows, sorted(lengths)[2], 4096, "train")
    assert len(kept) + len(left) == len(rows)
    assert left == [n for n, length in enumerate(lengths, 1) if length > sorted(lengths)[2]]
    assert longest == sorted(lengths)[2]
    with pytest.raises(InputError, match=r"Row \d of train has \d+ tokens, and the model reads 50"):
        fitting(served, rows, None, 50, "train")
    with pytest.raises(InputError, match="No row of train has at most 5 tokens"):
        fitting(served, rows, 5, 4096, "train")
    training = planned(tmp_path, base, "lora", most=sorted(lengths)[2])
    assert whole(training)["left_out"]["train"] == left


def test_the_loss_in_validation_takes_a_small_part_of_a_training(tmp_path: Path, base: Path) -> None:
    """It is measured on a tenth as many rows as are learned from, in ten looks or, in a short one, fewer; always the
    same ones, and the card says on how many."""
    export = exported(tmp_path / "export", splits={"train": 40, "validation": 200})
    for steps, rows, every in ((300, 24, 30), (3000, 200, 300), (40, 16, 20), (8, 16, 8)):
        plan, _ = plans.plan_of(export, str(base), "lora", None, device="cpu", given={"steps": steps, "batch": 8})
        assert prepared(plan, tmp_path)["validation"] == {"rows": rows, "of": 200, "every": every}
    training = folders.begin(tmp_path, "few", plan)
    assert whole(training)["validation"] == {"rows": 16, "of": 200, "every": 8}
    assert [line["step"] for line in training.log() if "eval_loss" in line] == [8]
    assert "| loss in validation on | 16 of 200 rows |" in (training.folder / "README.md").read_text("utf-8")


def test_both_forms_of_answers_are_the_same_rows(tmp_path: Path) -> None:
    """Whole conversations and prompts with their completion teach the same: the last answer."""
    trl, openai = (read_set(exported(tmp_path / name, name)) for name in ("trl", "openai"))
    assert trl.rows("train") == openai.rows("train")
    explicit, implicit = (read_set(exported(tmp_path / name, name)) for name in ("dpo", "dpo-implicit"))
    assert explicit.rows("train") == implicit.rows("train")


# What cannot be


def test_an_export_that_cannot_be_trained_from_says_why(tmp_path: Path, base: Path) -> None:
    """Another format, no rows to train on, a file that was changed, a bad row, no export at all: one sentence each."""
    with pytest.raises(InputError, match="is in the format alpaca, which cannot be trained from; export it as one of"):
        read_set(exported(tmp_path / "alpaca", "alpaca"))
    with pytest.raises(InputError, match="has no rows to train on"):
        read_set(exported(tmp_path / "held", splits={"test": 2}))
    with pytest.raises(InputError, match="holds no export"):
        read_set(tmp_path)
    changed = exported(tmp_path / "changed")
    (changed / "train.jsonl").write_text("{}\n", encoding="utf-8")
    with pytest.raises(InputError, match="is not what the export wrote"):
        read_set(changed)
    torn = exported(tmp_path / "torn")
    (torn / "train.jsonl").write_text('{"prompt": [], "completion": []}\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"Line 1 of .* is no row to train on: .*no messages"):
        read_set(torn, check=False).rows("train")
    training = planned(tmp_path, base, "lora")
    place = Path(training.plan["export"]["folder"]) / "manifest.json"
    place.write_text(place.read_text("utf-8") + " ", encoding="utf-8")
    with pytest.raises(InputError, match="was written again since this training was planned"):
        fit(training, print)
    assert training.state == "failed"
    assert "was written again" in training.message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "qlora"}, "needs a GPU that torch reaches by CUDA, and there is none here"),
        ({"base": "/no/model"}, "There is no model folder /no/model"),
        ({"base": "lora-sft"}, "lora-sft is not finished"),
        ({"method": "lora", "given": {"steps": 2, "batch": 2}, "base": "big"}, "GB of memory by the method lora"),
    ],
)
def test_what_cannot_be_trained_is_said_before_weights_are_loaded(
    tmp_path: Path, base: Path, changes: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU that is missing, a model that is missing or unfinished, memory that cannot be enough."""
    training = planned(tmp_path, base, "lora")
    if changes.get("base") == "big":
        monkeypatch.setattr("labeler.training.fit._free", lambda device: 1000)
        changes = changes | {"base": str(base)}
    training.change(training.plan | changes)
    with pytest.raises(SettingError, match=words):
        fit(training, print)
    assert re.search(words, training.message)


def test_where_free_memory_cannot_be_known_the_training_begins(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A sentence in the log says that nobody looked."""
    monkeypatch.setattr("labeler.training.fit._free", lambda device: None)
    whole(planned(tmp_path, base, "lora", given={"steps": 1}))
    assert "cannot be known here" in caplog.text


@pytest.mark.parametrize(
    ("method", "format_", "objective", "words"),
    [
        ("lorra", "trl", None, "No method 'lorra'; there are: lora, qlora"),
        ("lora", "trl", "ppo", "No objective 'ppo'"),
        ("prefix", "dpo", None, "The method prefix cannot be trained with dpo; methods that can: lora"),
        ("lora", "trl", "dpo", "The rows of this export are for sft, and cannot be trained with dpo"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(
    tmp_path: Path, base: Path, method: str, format_: str, objective: str | None, words: str
) -> None:
    """Before a folder is made."""
    with pytest.raises(SettingError, match=words):
        planned(tmp_path, base, method, format_, objective)


def test_names_of_trainings_are_unique_and_safe(tmp_path: Path, base: Path) -> None:
    """A name is a folder: no path leads out of the instance, and an adapter and a model share their names."""
    training = planned(tmp_path, base, "lora")
    for name in ("../x", "", "a/b", ".hidden"):
        with pytest.raises(SettingError, match="cannot be that of a training"):
            folders.begin(tmp_path, name, training.plan)
    with pytest.raises(SettingError, match="There is already a training called lora-sft"):
        folders.begin(tmp_path, "lora-sft", training.plan | {"method": "full"})


def test_without_the_packages_the_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named with the command that installs it."""
    from labeler import extras

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "trl" else object())
    with pytest.raises(
        MissingExtra, match=r"trl is not installed; install it with: pip install 'labeler-rag\[train\]'"
    ):
        extras.require("train")


@pytest.mark.parametrize("parameters", [1e8, 7e9, 7e10])
@pytest.mark.parametrize("method", list(METHODS))
def test_numbers_fit_together(method: str, parameters: float) -> None:
    """Whatever the size, the rows of a step are whole batches, and long rows come in smaller ones."""
    objective = METHODS[method].objectives[0]
    short, long = (numbers_for(method, objective, parameters, n, True, {}) for n in (500, 20_000))
    assert short.batch % short.rows_at_once == 0
    assert long.rows_at_once == 1 or method == "classifier"
    assert (short.rank > 0) == (METHODS[method].peft == "LORA")
    assert numbers_for("lora", "kto", parameters, 500, False, {"batch": 1}).rows_at_once == 2
    assert numbers_for("lora", "sft", parameters, 500, True, {"rank": 4}).alpha == 8


# After a kill


def command(place: Path, *words: str) -> Any:
    return process(place, *words, CUDA_VISIBLE_DEVICES="")


@pytest.mark.slow
def test_a_killed_training_goes_on_from_its_last_checkpoint(tmp_path: Path, base: Path) -> None:
    """kill -9 in the middle: the log goes on without a step missing or said twice, and the end is whole."""
    with Instance(tmp_path / "instance") as instance:
        place = instance.folder
    export = exported(tmp_path / "export", splits={"train": 40, "validation": 2})
    words = ("train", "--export", str(export), "--model", str(base), "--name", "tuned", "--steps", "16")
    with command(tmp_path, *words) as child:
        training = Training(place / "adapters" / "tuned")
        until(lambda: len([one for one in training.log() if "loss" in one]) >= 5 or child.poll() is not None, 240)
        assert child.poll() is None, (tmp_path / "server.log").read_text("utf-8")
        child.kill()
        child.wait()
    assert training.state == "paused"
    assert not training.card
    before = [line["step"] for line in training.log() if "loss" in line]
    (training.folder / "checkpoints" / "checkpoint-15").mkdir()
    with command(tmp_path, "train", "--resume", "tuned") as child:
        out, _ = child.communicate(timeout=240)
    assert child.returncode == 0, out
    assert training.state == "finished"
    steps = [line["step"] for line in training.log() if "loss" in line]
    assert steps == list(range(1, 17))
    seconds = [line["seconds"] for line in training.log()]
    assert seconds == sorted(seconds)
    assert 0 < max(before) < 16
    assert json.loads((training.folder / "labeler.json").read_text())["numbers"]["steps"] == 16
    assert backend_of(place, "tuned").asked == {"style": "zero-shot"}
    with command(tmp_path, "train", "--resume", "tuned") as child:
        child.communicate(timeout=240)
    assert "is finished; begin another one" in (tmp_path / "server.log").read_text("utf-8")


def test_a_training_stops_where_it_is_asked_to_and_goes_on(tmp_path: Path, base: Path) -> None:
    """It ends after its step with a checkpoint; a second one of the same name cannot run beside it."""
    training = planned(tmp_path, base, "lora", given={"steps": 6})

    def tell(line: str) -> None:
        if line.startswith("Step 2 of 6: loss"):
            assert training.state == "running"
            training.ask_to_stop()
            with pytest.raises(Conflict, match="runs already"):
                fit(training, print)
            training.ask_to_stop()

    assert not fit(training, tell)
    assert training.state == "paused"
    assert {line["step"] for line in training.log()} in ({1, 2}, {1, 2, 3})
    whole(training)
    assert [line["step"] for line in training.log() if "loss" in line] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(Conflict, match="does not run"):
        training.ask_to_stop()


# Coming back


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[tuple[Instance, Any, Any]]:
    """A project whose sentiments are approved, with settings of the task that differ from what was exported."""
    with Instance(tmp_path / "instance") as instance:
        admin = accounts.add_reviewer(instance.store, "admin", None, accounts.ADMIN)
        project_id = instance.create_project("shop", "en", {"tasks": ["sentiment"]}, admin)
        project = instance.store.projects.get(project_id)
        task = instance.project_task(project, "sentiment")
        news = [NewRecord(f"r{n}", f"{TEXTS[n % 3]}, number {n}") for n in range(12)]
        made = instance.store.write(lambda tx: instance.store.records.add(tx, project_id, news, ["sentiment"]))
        for n, record in enumerate(made):
            decision = Decision(record.id, "approve", f"key-{n:05}", 0, ("positive", "negative", "neutral")[n % 3])
            instance.decisions(project, task).decide(admin, decision)
        export_task(
            instance.store, project, task, "trl", instance.folder / "exports" / "1" / "a",
            formats=instance.plugins.exporters, reviewer_id=admin,
        )  # fmt: skip
        instance.change_task(
            project_id, "sentiment", {"style": "few-shot", "k": 4, "persona": {"en": "You are a pirate."}}, admin
        )
        yield instance, instance.store.projects.get(project_id), instance.project_task(project, "sentiment")


def test_a_tuned_model_is_asked_as_its_rows_were(shop: tuple[Instance, Any, Any], base: Path) -> None:
    """A task that names the training sends its rows' prompts, whatever its own style and persona say now; the word of
    the marks alone is the instance's own. The estimate of a run says so."""
    instance, project, task = shop
    export = instance.store.exports.all(project["id"])[0]
    row = read_set(Path(export["folder"])).rows("train")[0]
    asked = {"style": "zero-shot", "persona": "", "wording": "", "system_sha256": "00"}
    place = exported(instance.folder.parent / "short", asked=asked)
    plan, _ = plans.plan_of(place, str(base), "lora", None, device="cpu", given={"steps": 1})
    whole(folders.begin(instance.folder, "tuned", plan))
    named = {"backend": "transformers", "model_id": "tuned", "device": "cpu"}
    suggester = instance.suggester(project, task, named, keep=False)
    assert suggester.style.name == "zero-shot"
    record = next(
        found for key in (f"r{n}" for n in range(12))
        if (found := instance.store.records.by_key(project["id"], key)).text in row["prompt"][-1]["content"]
    )  # fmt: skip
    [ask] = suggester.flow(suggester.prepare([record])[0]).step() or []
    sent = ask.messages

    def plain(messages: Any) -> list[tuple[str, str]]:
        return [(one["role"], re.sub(r"-[0-9a-f]{8}\b", "-mark", one["content"])) for one in messages]

    assert plain(sent) == plain(row["prompt"])
    assert runs.estimate(suggester, [record.id], None).changed
    suggester.backend.asked = asked | {"system_sha256": system_hash(sent)}
    assert not runs.estimate(suggester, [record.id], None).changed
    own = instance.suggester(project, task, named | {"style": "chain-of-thought"}, keep=False)
    assert own.style.name == "chain-of-thought"


# Elsewhere


@pytest.fixture(scope="module")
def resolved(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Plans with their numbers by format, as a training here would have them."""
    place, found = tmp_path_factory.mktemp("elsewhere"), {}
    for format_ in ("trl", "openai", "dpo", "kto", "reward"):
        export = exported(place / format_, format_)
        plan, data = plans.plan_of(export, str(base), "lora", None, device="cpu", given={})
        found[format_] = prepared(plan, place), data
    return found


@pytest.mark.parametrize("format_", ["trl", "openai", "dpo", "kto", "reward"])
def test_the_command_for_trl_is_one_that_trl_takes(resolved: dict[str, Any], format_: str, tmp_path: Path) -> None:
    """TRL's own parser reads it, with the longest row and the columns that the rows have."""
    import shlex

    import trl
    from trl import ModelConfig, ScriptArguments, TrlParser

    plan, data = resolved[format_]
    words = shlex.split(printed("trl", plan, data, str(tmp_path / "out")).replace("\\\n", " "))
    config = {"sft": trl.SFTConfig, "dpo": trl.DPOConfig, "kto": trl.KTOConfig, "reward": trl.RewardConfig}[words[1]]
    parser = TrlParser((ScriptArguments, config, ModelConfig))
    script, training, model = parser.parse_args_and_config([*words[2:], "--use_cpu"])
    assert (script.dataset_name, script.dataset_test_split) == (str(data.folder), "validation")
    assert training.max_length == plan["max_length"]
    assert training.learning_rate == plan["numbers"]["rate"]
    assert (model.use_peft, model.lora_r, model.lora_target_modules) == (True, 16, "all-linear")
    assert getattr(training, "assistant_only_loss", False) == (format_ == "openai")


def test_other_trainers_get_files_that_they_read(resolved: dict[str, Any]) -> None:
    """LLaMA-Factory and axolotl are told every column, and what they cannot read is said."""
    yaml = pytest.importorskip("yaml", reason="yaml is not installed")
    plan, data = resolved["openai"]
    script = printed("llamafactory", plan, data, "out")
    files = dict(re.findall(r"cat > (\S+) <<'END_OF_FILE'\n(.*?)\nEND_OF_FILE", script, re.DOTALL))
    about, settings = json.loads(files["dataset_info.json"]), yaml.safe_load(files["labeler.yaml"])
    assert about["labeler_train"]["file_name"] == str(data.folder / "train.jsonl")
    assert about["labeler_train"]["columns"] == {"messages": "messages"}
    assert (settings["cutoff_len"], settings["learning_rate"]) == (plan["max_length"], plan["numbers"]["rate"])
    script = printed("axolotl", plan, data, "out")
    settings = yaml.safe_load(script.partition("END_OF_FILE'\n")[2].partition("\nEND_OF_FILE")[0])
    assert settings["sequence_len"] == plan["max_length"]
    assert settings["datasets"][0]["type"] == "chat_template"
    assert isinstance(settings["learning_rate"], float)
    elsewhere = prepared(plan | {"method": "qlora", "numbers": None}, data.folder)
    assert elsewhere["numbers"]["rows_at_once"] == 8
    assert "load_in_4bit: true" in printed("axolotl", elsewhere, data, "out")
    plan, data = resolved["dpo"]
    assert '"field_messages": "prompt"' in printed("axolotl", plan, data, "out")
    for trainer, format_ in (("llamafactory", "dpo"), ("axolotl", "trl"), ("llamafactory", "kto")):
        with pytest.raises(SettingError, match=f"The command for {trainer} cannot be printed"):
            printed(trainer, *resolved[format_], "out")
    with pytest.raises(SettingError, match="No trainer 'other'; there are: trl, llamafactory, axolotl"):
        printed("other", *resolved["trl"], "out")
    assert list(TRAINERS) == ["trl", "llamafactory", "axolotl"]


# The page


def test_the_page_begins_a_training_that_outlives_the_server(tmp_path: Path, base: Path) -> None:
    """It is a process of its own: the server that began it is gone, and the training comes to its end. Then the page
    shows the loss, what the model answers, and the commands for other trainers."""
    with Instance(tmp_path / "instance") as instance:
        admin = accounts.add_reviewer(instance.store, "admin", PASSWORD, accounts.ADMIN)
        project_id = instance.create_project("shop", "en", {"tasks": ["sentiment"]}, admin)
        folder = exported(instance.folder / "exports" / "1" / "a", "openai")
        manifest = json.loads((folder / "manifest.json").read_text("utf-8")) | {"counts": {"all": 8}}
        instance.store.write(
            lambda tx: instance.store.exports.add(
                tx, project_id, "sentiment", "openai", manifest, str(folder), admin, []
            )
        )
        app = create_app(instance, {"WTF_CSRF_ENABLED": False})
        client = app.test_client()
        enter(client, app, admin)
        page = f"/projects/{project_id}/training"
        assert "Train a model on an export" in client.get(page, headers={"Accept-Language": "en"}).text
        refused = client.post(page, data={"export": "1", "base": str(base), "method": "lora", "objective": "dpo"})
        assert refused.status_code == 400
        begun = client.post(page, data={"export": "1", "base": str(base), "method": "lora", "steps": "3"})
        assert begun.status_code == 303, begun.text
        training = folders.trainings(instance.folder, project_id)[0]
        assert training.state in ("queued", "running")
        again = client.post(page, data={"export": "1", "base": str(base), "method": "lora", "steps": "3"})
        assert "sentiment-lora" in again.text
        assert again.status_code == 409
    until(lambda: training.state in ("finished", "failed"), 240)
    assert training.state == "finished", (training.folder / "output.log").read_text("utf-8")
    with Instance(tmp_path / "instance") as instance:
        app = create_app(instance, {"WTF_CSRF_ENABLED": False})
        client = app.test_client()
        enter(client, app, admin)
        shown = client.get(f"{page}/sentiment-lora", headers={"Accept-Language": "en"}).text
        for words in (
            "Finished",
            "<polyline",
            "Step 3 of 3",
            "trl sft",
            "llamafactory-cli train",
            "axolotl train",
            GOOD[2:11],
        ):
            assert words in shown, words
        assert "begun" in str(instance.store.db.value("SELECT kind FROM events ORDER BY id DESC LIMIT 1"))


def test_a_loss_is_drawn_from_its_first_step_to_its_last() -> None:
    """The highest loss is at the top, the lowest at the bottom; one point is no line."""
    from labeler.web.training import curve

    drawn = curve([{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}, {"step": 2, "eval_loss": 1.5}])
    assert drawn is not None
    assert drawn["loss"] == "320.0,8.0 632.0,232.0"
    assert drawn["eval_loss"] == "632.0,120.0"
    assert curve([{"step": 1, "loss": 2.0}]) is None
