"""Preference sets: which decisions and rankings say that one answer is better than another, and who reads the files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from test_export import ALL_TRAIN, World, found, lines, world  # noqa: F401

from labeler import Choices, Label, Task, Text, strictjson
from labeler.annotation.comparing import Comparing
from labeler.errors import InputError
from labeler.export import ExportResult, Filters, Options, PreferenceFormat, Selection, Shares, built_in
from labeler.labels import Moves
from labeler.records import ParseFailure
from labeler.store.exports import KINDS

FORMATS = [name for name, one in built_in().items() if isinstance(one, PreferenceFormat)]
PAIRS = ["dpo", "dpo-implicit", "openai-dpo", "reward", "llamafactory-dpo"]
JUDGED = ["kto", "llamafactory-kto"]


def exported(world: World, name: str = "dpo", **more: Any) -> ExportResult:  # noqa: F811
    return world.export(name, more.pop("folder", world.folder / name), formats=built_in(), shares=ALL_TRAIN, **more)


def pairs(world: World, **more: Any) -> list[tuple[Any, Any]]:  # noqa: F811
    """Return the better and the worse answers of a set, as values."""
    rows = lines(exported(world, **more).folder / "train.jsonl")
    return [tuple(_said(row[side][0]["content"], world.task.name) for side in ("chosen", "rejected")) for row in rows]


def judged(world: World, **more: Any) -> list[tuple[Any, bool]]:  # noqa: F811
    rows = lines(exported(world, "kto", **more).folder / "train.jsonl")
    return [(_said(row["completion"][0]["content"], world.task.name), row["label"]) for row in rows]


def _said(content: str, name: str) -> Any:
    try:
        return strictjson.loads(content)[name]
    except InputError:
        return content


def decided(world: World, key: str, suggested: Any, value: Any, text: str = "", **more: Any) -> int:  # noqa: F811
    """Let a person decide on a record that something was suggested for; return its number."""
    record = world.record(key, text or f"글 {key}")
    made = world.suggest(record, suggested)
    how = "scratch" if more.get("blind") else "accepted" if suggested == value else "corrected"
    world.annotate(record, value, **{"how": how, "suggestion_id": made} | more)
    return record


def rejected(world: World, key: str, suggested: Any = "neutral", text: str = "", **more: Any) -> int:  # noqa: F811
    return decided(world, key, suggested, None, text, state="rejected", how="scratch", **more)


def answers(world: World, record: int, *values: Any) -> list[str]:  # noqa: F811
    """Let a model each have given one of the answers; return their names."""
    return [str(world.suggest(record, value, kind=f"model {n}")) for n, value in enumerate(values)]


def ranked(world: World, record: int, tiers: list[list[str]], who: str = "kim", **more: Any) -> int:  # noqa: F811
    people, store = world.store.people, world.store
    row = people.named(who)
    person = row["id"] if row else store.write(lambda tx: people.create(tx, who, None, "reviewer"))
    room = Comparing(store, world.project["id"], world.task, {"blind_share": 0.0})
    return room.rank(person, record, tiers, os.urandom(8).hex(), **more)


# What people changed


def test_a_correction_is_better_than_what_was_suggested(world: World) -> None:  # noqa: F811
    """The person's answer is the chosen one, the model's the rejected one, and the prompt is that of any other set."""
    decided(world, "r1", "negative", "positive")
    (row,) = lines(exported(world).folder / "train.jsonl")
    assert set(row) == {"prompt", "chosen", "rejected"}
    assert row["chosen"] == [{"role": "assistant", "content": '{"sentiment": "positive"}'}]
    assert row["rejected"] == [{"role": "assistant", "content": '{"sentiment": "negative"}'}]
    (plain,) = lines(world.export("trl", shares=ALL_TRAIN).folder / "train.jsonl")
    assert row["prompt"] == plain["prompt"]


def test_an_accepted_suggestion_is_right_and_makes_no_pair(world: World) -> None:  # noqa: F811
    decided(world, "r1", "positive", "positive")
    decided(world, "r2", "negative", "positive")
    assert pairs(world) == [("positive", "negative")]
    assert found(exported(world).manifest, "left_out") == {"as_suggested": ["r1"]}
    assert judged(world) == [("positive", True), ("positive", True), ("negative", False)]


def test_a_rejected_record_makes_its_suggestion_wrong_and_is_in_no_other_set(world: World) -> None:  # noqa: F811
    decided(world, "r1", "negative", "positive")
    rejected(world, "r2")
    assert judged(world) == [("positive", True), ("negative", False), ("neutral", False)]
    for name in [*PAIRS, "openai", "trl", "alpaca", "csv"]:
        files = exported(world, name).files
        assert not [path for path in files if "글 r2" in path.read_text(encoding="utf-8")], name


def test_a_blind_decision_is_compared_with_the_suggestion_that_was_not_shown(world: World) -> None:  # noqa: F811
    """The one that the decision names, or else the newest one of that time."""
    decided(world, "r1", "negative", "positive", blind=1)
    late = decided(world, "r2", "negative", "positive", blind=1, suggestion_id=None)
    world.suggest(late, "neutral")
    decided(world, "r3", "neutral", "positive", suggestion_id=None, how="scratch")
    assert pairs(world) == [("positive", "negative"), ("positive", "negative")]
    assert exported(world).manifest["sources"] == {"blind": 2}
    assert found(exported(world).manifest, "left_out") == {"no_suggestion": ["r3"]}


@pytest.mark.parametrize(
    ("schema", "suggested", "value"),
    [(Text(), "Good  taste", "good taste"), (Choices(Label("a"), Label("b")), ["b", "a"], ["a", "b"])],
)
def test_pairs_that_differ_in_form_alone_stay_out_unless_asked_for(
    world: World,  # noqa: F811
    schema: Any,
    suggested: Any,
    value: Any,
) -> None:
    """White space, case and the order of a set teach nothing; answers that are equal never make a pair."""
    world.task = Task("other", schema)
    decided(world, "r1", suggested, value)
    decided(world, "r2", value, value)
    with pytest.raises(InputError, match="is left out"):
        pairs(world)
    assert [right for _, right in judged(world)] == [True, True]
    kept = pairs_or_none(world, options=Options(keep_same_form=True))
    assert kept == ([(value, suggested)] if schema.parse(suggested, "") != value else [])


def pairs_or_none(world: World, **more: Any) -> list[tuple[Any, Any]]:  # noqa: F811
    try:
        return pairs(world, **more)
    except InputError:
        return []


def test_an_unreadable_answer_is_the_worse_one_only_if_asked_for(world: World) -> None:  # noqa: F811
    """It stays out and is counted; asked for, its text stands as it came."""
    record = world.record("r1", "맛있어요")
    made = world.suggest(record, None, ParseFailure("not_json", "Not JSON", "Positive, I think"))
    world.annotate(record, "positive", suggestion_id=made)
    decided(world, "r2", "negative", "positive")
    assert found(exported(world).manifest, "left_out") == {"unread_suggestion": ["r1"]}
    asked = Options(failures=True)
    assert pairs(world, options=asked) == [("positive", "Positive, I think"), ("positive", "negative")]
    assert ("Positive, I think", False) in judged(world, options=asked)


def test_answers_under_older_labels_are_read_in_those_of_today(world: World) -> None:  # noqa: F811
    """A renamed label has its new name on both sides; a suggestion that today's labels cannot hold stays out."""
    decided(world, "r1", "negative", "positive")
    decided(world, "r2", "neutral", "negative")
    labels = [{"name": "positive"}, {"name": "bad"}]
    moves = {1: Moves(renamed={"negative": "bad"}, reopened=("neutral",))}
    world.task = world.task.overridden(1, {"labels": labels}, moves)
    assert pairs(world) == [("positive", "bad")]
    assert found(exported(world).manifest, "left_out") == {"suggestion_not_in_schema": ["r2"]}


def test_a_preference_is_in_the_split_of_its_record(world: World) -> None:  # noqa: F811
    """Rejected and ranked records too, and what belongs together stays together."""
    for n in range(40):
        decided(world, f"r{n}", "negative", "positive", f"글 {n}")
    plain = world.export("openai")
    splits = {row["id"]: row["split"] for row in lines(plain.folder / "records.jsonl")}
    assert {"train", "test"} <= set(splits.values())
    held = next(key for key, split in splits.items() if split == "test")
    twin, other = rejected(world, "twin", text="글 둘"), world.record("ranked", "글 셋")
    best, worst = answers(world, other, "positive", "negative")
    ranked(world, other, [[best], [worst]])
    cluster = world.store.records.by_key(world.project["id"], held)
    assert cluster
    for key in (held, "twin", "ranked"):
        world.cluster(key, cluster.id)
    for name in ("kto", "dpo"):
        result = world.export(name, world.folder / name, formats=built_in())
        rows = lines(result.folder / "records.jsonl")
        assert {row["id"]: row["split"] for row in rows if row["id"] in splits} == splits
        assert {row["split"] for row in rows if row["id"] not in splits} == {"test"}
    assert twin


def test_filters_hold_for_preferences_as_for_labels(world: World) -> None:  # noqa: F811
    decided(world, "r1", "negative", "positive")
    decided(world, "r2", "positive", "positive")
    rejected(world, "r3")
    assert judged(world, filters=Filters(how=("accepted",))) == [("positive", True)]
    with pytest.raises(InputError, match="is left out"):
        pairs(world, filters=Filters(how=("accepted",)))


def test_the_manifest_counts_lines_and_names_where_they_come_from(world: World) -> None:  # noqa: F811
    decided(world, "r1", "negative", "positive")
    decided(world, "r2", "positive", "positive")
    rejected(world, "r3")
    result = exported(world, "kto")
    assert result.manifest["counts"] == {"train": 4, "all": 4}
    assert result.manifest["files"]["train.jsonl"]["rows"] == 4
    assert result.manifest["sources"] == {"corrected": 1, "accepted": 1, "rejected": 1}
    rows = lines(result.folder / "records.jsonl")
    assert [(row["id"], row["provenance"]["source"], row["label"]) for row in rows] == [
        ("r1", "corrected", "positive"),
        ("r2", "accepted", "positive"),
        ("r3", "rejected", None),
    ]


# Rankings


def test_a_ranking_makes_each_answer_better_than_those_below_it(world: World) -> None:  # noqa: F811
    """Answers of one tier make no pair."""
    record = world.record("r1", "그저 그래요")
    good, so, bad = answers(world, record, "neutral", "positive", "negative")
    ranked(world, record, [[so], [good, bad]])
    assert pairs(world) == [("positive", "neutral"), ("positive", "negative")]
    (row,) = lines(world.folder / "dpo" / "records.jsonl")
    assert (row["id"], row["provenance"]["source"], row["label"]) == ("r1", "ranking", None)
    assert lines(exported(world, "reward").folder / "train.jsonl")[0]["chosen"][-1]["content"] == (
        '{"sentiment": "positive"}'
    )


def test_the_newest_ranking_of_each_person_counts_once(world: World) -> None:  # noqa: F811
    record = world.record("r1", "그저 그래요")
    one, two = answers(world, record, "neutral", "positive")
    ranked(world, record, [[one], [two]])
    last = ranked(world, record, [[two], [one]])
    ranked(world, record, [[one], [two]], "lee")
    assert pairs(world) == [("positive", "neutral"), ("neutral", "positive")]
    world.store.write(lambda tx: world.store.rankings.withdraw(tx, last))
    assert pairs(world) == [("neutral", "positive"), ("neutral", "positive")]


def test_a_record_that_several_people_ranked_is_frozen_once(world: World) -> None:  # noqa: F811
    record = world.record("r1", "그저 그래요")
    one, two = answers(world, record, "neutral", "positive")
    for who in ("kim", "lee"):
        ranked(world, record, [[one], [two]], who)
    world.export("dpo", shares=Shares(0.0, 0.0, 1.0), selection=Selection(freeze="spring"))
    assert [row["records"] for row in world.store.splits.frozen(world.project["id"])] == [1]


def test_rankings_of_two_sets_are_compared_person_by_person(world: World) -> None:  # noqa: F811
    """Beside the decision on the same record; a new ranking is a change, and one of another person is added."""
    record = decided(world, "r1", "negative", "positive")
    one, two = answers(world, record, "neutral", "positive")
    ranked(world, record, [[one], [two]])
    first = exported(world, folder=world.folder / "first")
    ranked(world, record, [[one, two]], none_good=True)
    ranked(world, record, [[two, one]], "lee", none_good=True)
    second = exported(world, "kto", folder=world.folder / "second")
    assert first.id is not None and second.id is not None
    between = {kind: world.store.exports.differences(first.id, second.id, kind, 9)[1] for kind in KINDS}
    assert {kind: [(row["old_value"], row["new_value"]) for row in found] for kind, found in between.items()} == {
        "added": [(None, f"✗ {two} = {one}")], "dropped": [], "changed": [(f"{one} > {two}", f"✗ {one} = {two}")],
        "moved": [],
    }  # fmt: skip


def test_a_tie_of_all_says_nothing_and_none_good_says_that_all_are_wrong(world: World) -> None:  # noqa: F811
    first, second = world.record("r1", "그저 그래요"), world.record("r2", "글쎄요")
    for record, wrong in ((first, False), (second, True)):
        ranked(world, record, [answers(world, record, "neutral", "positive")], none_good=wrong)
    assert judged(world) == [("neutral", False), ("positive", False)]
    assert found(exported(world, "kto").manifest, "left_out") == {"no_order": ["r1"]}


def test_a_rejected_record_has_no_better_answer(world: World) -> None:  # noqa: F811
    record = rejected(world, "r1")
    one, two = answers(world, record, "neutral", "positive")
    world.store.write(lambda tx: world.store.work.decided(tx, record, world.task.name, "rejected", 1))
    ranked(world, record, [[one], [two]])
    decided(world, "r2", "negative", "positive")
    assert pairs(world) == [("positive", "negative")]
    assert found(exported(world).manifest, "left_out") == {"ranked_rejected": ["r1"]}


def test_whoever_removes_a_ranked_record_learns_which_sets_hold_it(world: World) -> None:  # noqa: F811
    """A ranking stands in its export as an annotation does, and goes with its record."""
    record = world.record("r1", "그저 그래요")
    one, two = answers(world, record, "neutral", "positive")
    ranked(world, record, [[one], [two]])
    export = exported(world)
    going = world.store.removal.going(world.project["id"], [record])
    assert [number for number, _, _ in going.exports] == [export.id]
    world.store.write(lambda tx: world.store.removal.remove(tx, world.project["id"], [record]))
    assert world.store.db.all("SELECT * FROM export_rankings") == []


def test_nothing_to_prefer_says_why(world: World) -> None:  # noqa: F811
    """Approvals that nothing was suggested for are counted in the sentence."""
    world.approve("r1", "맛있어요")
    with pytest.raises(InputError, match=r"No suggestion was there to compare the decision with \(1\)"):
        exported(world)


# Readers


def furnish(world: World) -> None:  # noqa: F811
    for n in range(4):
        decided(world, f"r{n}", "negative", "positive", f"review {n}")
    rejected(world, "r4", text="review 4")
    record = world.record("r5", "review 5")
    one, two = answers(world, record, "neutral", "positive")
    ranked(world, record, [[one], [two]])


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No reader asks a hub, shows a bar, or keeps anything outside the test."""
    for name, value in (("HF_HUB_OFFLINE", "1"), ("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.usefixtures("quiet")
def test_datasets_loads_the_folder(world: World, name: str, tmp_path: Path) -> None:  # noqa: F811
    """Every row is there, with the columns of its form and no others."""
    datasets = pytest.importorskip("datasets")
    furnish(world)
    result = exported(world, name)
    read = datasets.load_dataset(str(result.folder), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in read.items()} == {"train": 9 if name in JUDGED else 5}
    assert set(read["train"].column_names) == set(lines(result.folder / "train.jsonl")[0])


def test_other_trainers_find_their_columns_described(world: World) -> None:  # noqa: F811
    """axolotl gets its YAML, LLaMA-Factory a dataset_info.json that names ranking, tag and roles."""
    furnish(world)
    block = (exported(world).folder / "axolotl.yaml").read_text(encoding="utf-8").splitlines()
    assert block[:2] == ['rl: "dpo"', "datasets:"]
    for line in ('path: "train.jsonl"', 'type: "chat_template.default"', 'field_messages: "prompt"',
                 'field_chosen: "chosen"'):  # fmt: skip
        assert [said for said in block if said.strip(" -") == line], line
    described = {
        name: strictjson.loads((exported(world, name).folder / "dataset_info.json").read_bytes())["sentiment_train"]
        for name in ("llamafactory-dpo", "llamafactory-kto")
    }
    assert described["llamafactory-dpo"]["ranking"] is True
    assert described["llamafactory-kto"]["columns"] == {"messages": "messages", "kto_tag": "label"}
    for name, info in described.items():
        row = lines(world.folder / name / info["file_name"])[0]
        assert set(info["columns"].values()) == set(row)
        assert info["tags"]["role_tag"] in row["messages"][0]


def read_by_llama_factory(folder: Path) -> list[tuple[list[str], list[str]]]:
    """Return (questions and answers, two responses) of each row by the rules of its "sharegpt" converter (0.9.5).

    Behind the system message turns alternate; a ranking wants a user's turn last, and anything else an answer. A row
    that is right has an empty answer behind it, one that is wrong has it before; a row that breaks a rule is skipped.
    """
    info = strictjson.loads((folder / "dataset_info.json").read_bytes())["sentiment_train"]
    columns, tags, found = info["columns"], info["tags"], []
    for row in lines(folder / info["file_name"]):
        said = [(one[tags["role_tag"]], one[tags["content_tag"]]) for one in row[columns["messages"]]]
        turns = said[1:] if said[0][0] == tags["system_tag"] else said
        texts = [text for _, text in turns]
        assert all(role == tags[("user_tag", "assistant_tag")[n % 2]] for n, (role, _) in enumerate(turns))
        assert len(turns) % 2 == (1 if info.get("ranking") else 0)
        if info.get("ranking"):
            both = [row[columns[side]] for side in ("chosen", "rejected")]
            assert all(one[tags["role_tag"]] == tags["assistant_tag"] for one in both)
            found.append((texts, [one[tags["content_tag"]] for one in both]))
        else:
            assert isinstance(row[columns["kto_tag"]], bool)
            found.append((texts[:-1], [texts[-1], ""] if row[columns["kto_tag"]] else ["", texts[-1]]))
    return found


def test_llama_factory_reads_the_same_preferences_as_trl(world: World) -> None:  # noqa: F811
    """By the rules of its converter no row is skipped, and better and worse are where they belong."""
    furnish(world)
    pair, single = (
        read_by_llama_factory(exported(world, name).folder) for name in ("llamafactory-dpo", "llamafactory-kto")
    )
    dpo, kto = (lines(exported(world, name).folder / "train.jsonl") for name in ("dpo", "kto"))
    assert [(texts[-1], both) for texts, both in pair] == [
        (row["prompt"][-1]["content"], [row["chosen"][0]["content"], row["rejected"][0]["content"]]) for row in dpo
    ]
    assert [(texts[-1], both.index("") == 1) for texts, both in single] == [
        (row["prompt"][-1]["content"], row["label"]) for row in kto
    ]


def trainee(folder: Path, head: str) -> tuple[Any, Any]:
    """Return a tiny model of random weights and a tokenizer of bytes with a chat template."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    special = ["<pad>", "<|im_start|>", "<|im_end|>"]
    vocabulary = {token: n for n, token in enumerate([*special, *alphabet])}
    bytes_ = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    bytes_.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_.decoder = tokenizers.decoders.ByteLevel()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bytes_, pad_token=special[0], eos_token=special[2], additional_special_tokens=special[1:2]
    )
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    config = transformers.LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        pad_token_id=0, eos_token_id=2, max_position_embeddings=4096, num_labels=1,
    )  # fmt: skip
    # From a folder: the trainer loads it once more, as what it must not move away from.
    getattr(transformers, head)(config).save_pretrained(folder / "model")
    return str(folder / "model"), tokenizer


@pytest.fixture
def one_thread() -> Any:
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("name", "trainer", "head"),
    [
        ("dpo", "DPO", "LlamaForCausalLM"),
        ("dpo-implicit", "DPO", "LlamaForCausalLM"),
        ("kto", "KTO", "LlamaForCausalLM"),
        ("reward", "Reward", "LlamaForSequenceClassification"),
    ],
)
@pytest.mark.usefixtures("quiet", "one_thread")
@pytest.mark.filterwarnings("ignore")
def test_trl_trains_on_it(world: World, tmp_path: Path, name: str, trainer: str, head: str) -> None:  # noqa: F811
    """Two steps of the real trainer, on all rows."""
    trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
    furnish(world)
    folder = exported(world, name, options=Options(language="en")).folder
    rows = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    model, tokenizer = trainee(tmp_path, head)
    settings = getattr(trl, f"{trainer}Config")(
        output_dir=str(tmp_path / "out"), max_steps=2, per_device_train_batch_size=2, max_length=None, report_to=[],
        use_cpu=True, bf16=False, save_strategy="no", disable_tqdm=True, gradient_checkpointing=False,
    )  # fmt: skip
    made = getattr(trl, f"{trainer}Trainer")(model, args=settings, train_dataset=rows, processing_class=tokenizer)
    assert len(made.train_dataset) == len(rows)
    assert made.train().global_step == 2
