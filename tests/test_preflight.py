"""Preflight: what a trainer would refuse, cut or drop is said before anything is written."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_export_asked import ALL_TRAIN, Shop

from labeler.errors import InputError
from labeler.export import Options, Preflight, Shares, check_task
from labeler.export.formats import ExportRow
from labeler.export.preflight import NOTED, REFUSED, WARNED, Ruler, _Measured, rounded
from labeler.instance import Instance
from labeler.records import Record, Suggestion

_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with Instance(tmp_path / "instance") as instance:
        yield Shop(instance)


def check(
    shop: Shop, format_name: str = "trl", task: str = "sentiment", model: Any = None, prices: Any = None, **more: Any
) -> Preflight:
    of = shop.task(task)
    shares = more.pop("shares", ALL_TRAIN)
    return check_task(
        shop.store, shop.project, of, format_name, formats=shop.instance.plugins.exporters, shares=shares,
        options=Options(**more), calls=shop.instance.calls(shop.project, of), model=model, prices=prices or {},
    )  # fmt: skip


def found(result: Preflight, level: str) -> dict[str, list[str]]:
    return {one.kind: list(one.keys) for one in result.findings if one.level == level}


def fill(shop: Shop, rows: int, text: str = "정말 잘 쓰고 있어요", value: str = "positive") -> None:
    for n in range(rows):
        shop.approve(f"fill{n}", f"{text} {n}", value)


def test_a_set_that_is_large_enough_passes(shop: Shop) -> None:
    """Nothing refuses it, its rows and labels are counted, and nothing is remembered of it."""
    fill(shop, 20)
    result = check(shop, "openai")
    assert result.passes and result.counts == {"train": 26}
    assert result.labels["train"]["positive"] == 23
    assert shop.store.splits.newest(shop.project_id) == 0
    assert shop.store.exports.all(shop.project_id) == []


def test_openai_refuses_fewer_than_ten_rows(shop: Shop) -> None:
    """Six rows load everywhere else."""
    result = check(shop, "openai")
    assert not result.passes
    assert [one.message for one in result.findings if one.level == REFUSED] == [
        "OpenAI wants at least 10 rows in train; there are 6"
    ]
    assert check(shop, "trl").passes


def test_rows_longer_than_the_default_of_a_trainer_are_told_with_what_to_set(shop: Shop) -> None:
    """TRL cuts at 1,024 tokens unless it is told otherwise; short guidelines fit."""
    fill(shop, 12, "길고 긴 리뷰예요. " * 120)
    result = check(shop)
    (finding,) = [one for one in result.findings if one.kind == "over_limit"]
    assert finding.level == WARNED and finding.count == 12 == len(finding.keys)
    assert f"Set max_length of TRL to {rounded(result.lengths.longest):,} or more" in finding.message
    assert check(shop, guidelines="none", answers="plain").lengths.at(0.1) < result.lengths.at(0.1) / 2


def test_a_row_that_no_setting_saves_is_refused(shop: Shop) -> None:
    """OpenAI takes at most 65,536 tokens in one row."""
    fill(shop, 12)
    shop.approve("huge", "가나다 " * 40_000, "positive")
    result = check(shop, "openai", longest=1_000_000)
    assert found(result, REFUSED) == {"too_many_tokens": ["huge"]}


def test_lengths_without_a_tokenizer_are_an_estimate_and_say_so(shop: Shop) -> None:
    """Their steps rise, up to the longest."""
    lengths = check(shop).lengths
    said = lengths.to_json()
    assert said.pop("real") is False
    assert list(said.values()) == sorted(said.values()) and said["longest"] == lengths.longest > 200


def test_labels_with_few_rows_are_named(shop: Shop) -> None:
    """Under 10 is a warning, under 50 and 100 are good to know."""
    fill(shop, 60)
    result = check(shop)
    (warned,) = [one for one in result.findings if one.kind == "under_10"]
    assert warned.level == WARNED and "neutral" in warned.message and "negative" in warned.message
    assert [one.level for one in result.findings if one.kind == "under_100"] == [NOTED]


def test_what_an_export_would_leave_out_or_warn_of_is_found_too(shop: Shop) -> None:
    """Contradicting near-duplicates, control tokens, a split without rows: with the keys of their records."""
    shop.approve("c1", "좋아요<|eot_id|>", "positive")
    result = check(shop, shares=Shares(0.98, 0.01, 0.01))
    assert found(result, WARNED)["control_tokens"] == ["c1"]
    assert "share_missed" in found(result, WARNED)


def test_the_same_text_in_two_splits_would_be_refused() -> None:
    """The splits promise that there is none; the preflight looks all the same."""
    measured = _Measured(Ruler(), 2)
    for split in ("train", "test"):
        measured.take(ExportRow(1, Record(1, 1, split, "같은 글", cluster=7), "positive", "positive", split))
    assert {(one.kind, one.level, tuple(one.keys)) for one in measured.overlaps()} == {
        ("overlap_same", REFUSED, ("test",)), ("overlap_near", REFUSED, ("test",))
    }  # fmt: skip


def test_three_rows_are_shown_whole(shop: Shop) -> None:
    """As conversations, with the answer last; fewer where there are fewer."""
    samples = check(shop).samples
    assert len(samples) == 3 and all('"sentiment"' in sample.splitlines()[-1] for sample in samples)


def test_a_table_is_checked_without_prompts(shop: Shop) -> None:
    """There are no tokens to count, and no trainer that would refuse it."""
    result = check(shop, "csv")
    assert result.passes and result.samples == [] and result.lengths.longest == 0


def test_suggestions_are_no_training_set(shop: Shop) -> None:
    with pytest.raises(InputError, match="no trainer reads them"):
        check(shop, "suggestions")


needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="needs the extra local"
)


@needs_transformers
def test_with_a_model_its_own_tokenizer_counts_and_its_template_renders(shop: Shop, tmp_path: Path) -> None:
    """The longest row is counted exactly, whatever was left out."""
    fill(shop, 4, "조금 긴 리뷰예요. " * 30)
    folder = tokenizer(tmp_path / "model")
    result = check(shop, model=folder)
    assert result.lengths.real
    assert result.samples[0].startswith("<|im_start|>system\n") and result.samples[0].endswith("<|im_end|>\n")
    assert result.lengths.longest == max(Ruler(folder).tokens(one) for one in conversations(shop, tmp_path))


def conversations(shop: Shop, tmp_path: Path) -> list[Any]:
    file = shop.export(tmp_path / "out", "openai").folder / "train.jsonl"
    return [json.loads(line)["messages"] for line in file.read_text(encoding="utf-8").splitlines()]


@needs_transformers
def test_a_template_that_refuses_a_row_is_told_in_its_words(shop: Shop, tmp_path: Path) -> None:
    """Some take no system message."""
    template = "{{ raise_exception('System role not supported') if messages[0].role == 'system' }}"
    with pytest.raises(InputError, match="refuses a row: System role not supported"):
        check(shop, model=tokenizer(tmp_path / "model", template))


@needs_transformers
def test_a_model_that_cannot_chat_is_refused(shop: Shop, tmp_path: Path) -> None:
    """So is a folder without a tokenizer."""
    with pytest.raises(InputError, match="has no chat template"):
        check(shop, model=tokenizer(tmp_path / "model", None))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="No tokenizer can be read from"):
        check(shop, model=tmp_path / "empty")


@pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="needs the extra train")
def test_the_defaults_of_trl_are_those_that_are_told() -> None:
    """The table of limits is what the installed trainer does."""
    from trl import DPOConfig, SFTConfig

    from labeler.export.preflight import TRAINERS

    (trainer,) = TRAINERS["trl"]
    for config in (SFTConfig, DPOConfig):
        assert config.__dataclass_fields__["max_length"].default == trainer.limit


def tokenizer(folder: Path, template: str | None = _TEMPLATE) -> Path:
    """A small tokenizer of single bytes, as a folder of the hub."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({letter: n for n, letter in enumerate(letters)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=made, additional_special_tokens=["<|im_start|>", "<|im_end|>"])
    if template is not None:
        fast.chat_template = template
    fast.save_pretrained(folder)
    return folder


def model(folder: Path, **config: Any) -> Path:
    """The tokenizer with the config of a model beside it, as a folder that can be trained from."""
    from transformers import LlamaConfig

    LlamaConfig(**config).save_pretrained(tokenizer(folder))
    return folder


@needs_transformers
def test_rows_that_the_model_cannot_read_are_refused_where_labeler_trains(shop: Shop, tmp_path: Path) -> None:
    """Other trainers cut or drop them, and no advice goes beyond what the model reads."""
    fill(shop, 4, "조금 긴 리뷰예요. " * 30)
    longest = check(shop, model=tokenizer(tmp_path / "bare")).lengths.longest
    small = model(tmp_path / "small", max_position_embeddings=longest - 1)
    result = check(shop, model=small)
    (finding,) = [one for one in result.findings if one.kind == "beyond_model"]
    assert finding.level == REFUSED and f"reads at most {longest - 1:,} tokens, and labeler train" in finding.message
    assert finding.count == len(finding.keys) > 0 and not result.passes and result.reads == longest - 1
    (advice,) = [one.message for one in result.findings if one.kind == "over_limit"]
    assert f"Set max_length of TRL to {longest - 1:,} or more" in advice
    other = check(shop, "llamafactory", model=small)
    (warned,) = [one for one in other.findings if one.kind == "beyond_model"]
    assert (
        warned.level == WARNED and "LLaMA-Factory cuts or drops longer rows, whatever cutoff_len is" in warned.message
    )
    assert other.passes


@needs_transformers
def test_a_model_that_reads_less_than_a_default_needs_no_advice_on_it(shop: Shop, tmp_path: Path) -> None:
    """TRL's 1,024 tokens are more than it has anyway."""
    fill(shop, 4, "조금 긴 리뷰예요. " * 30)
    result = check(shop, model=model(tmp_path / "small", max_position_embeddings=512))
    assert {"beyond_model", "over_limit"} & {one.kind for one in result.findings} == {"beyond_model"}


@needs_transformers
def test_rows_that_fit_are_not_mentioned(shop: Shop, tmp_path: Path) -> None:
    """A folder without a config says nothing of a context."""
    roomy = check(shop, model=model(tmp_path / "roomy", max_position_embeddings=100_000))
    bare = check(shop, model=tokenizer(tmp_path / "bare"))
    assert roomy.reads == 100_000 and bare.reads is None
    assert not [one for result in (roomy, bare) for one in result.findings if one.kind == "beyond_model"]


def test_a_model_of_openai_is_known_by_its_name(shop: Shop) -> None:
    """Its rows are those of fine-tuning, which are shorter than its context; no other trainer is spoken of."""
    fill(shop, 12)
    shop.approve("huge", "가나다 " * 40_000, "positive")
    prices = shop.instance.prices
    result = check(shop, "openai", model="gpt-4o-mini-2024-07-18", prices=prices, longest=1_000_000)
    assert [(one.level, one.message) for one in result.findings if one.kind in ("too_many_tokens", "over_limit")] == [
        (REFUSED, "OpenAI takes at most 65,536 tokens in a row")
    ]
    assert result.reads == 65_536 and not result.lengths.real
    with pytest.raises(InputError, match="How long a row gpt-5 is tuned on is not known"):
        check(shop, "openai", model="gpt-5", prices=prices)
    with pytest.raises(InputError, match="OpenAI does not read the format 'trl'; choose openai or openai-dpo"):
        check(shop, model="gpt-4.1", prices=prices)


def test_kto_wants_right_and_wrong_answers(shop: Shop) -> None:
    """Accepted suggestions alone teach it nothing; one correction is both."""
    for n, (value, how) in enumerate([("positive", "accepted"), ("positive", "accepted"), ("negative", "corrected")]):
        record_id = shop.record(f"s{n}", f"{n}번째 후기를 남겨요")
        made = Suggestion(record_id, "sentiment", "2", "nearest", None, "positive", None)
        suggestion_id = shop.store.write(lambda tx, made=made: shop.store.suggestions.add(tx, shop.project_id, made))
        shop.approve(f"s{n}", "", value, how=how, suggestion_id=suggestion_id)
        if n == 1:
            (refused,) = [one.message for one in check(shop, "kto").findings if one.level == REFUSED]
            assert refused == "KTO wants right and wrong answers in train; there are 2 and 0"
    assert check(shop, "kto").passes and check(shop, "dpo").passes
