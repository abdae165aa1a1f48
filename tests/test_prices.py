"""What models cost and hold, and when they go."""

from __future__ import annotations

from datetime import date

import pytest

from labeler.backends.prices import ModelInfo, ModelWarning, cost, find_model, load_prices, shutdown_warning
from labeler.errors import SettingError


def test_cost_of_a_call():
    """The usage of a completion and the price of its model give US dollars; cached tokens at their own price."""
    info = find_model(load_prices(), "gpt-4o-mini")
    assert cost(5, 2, 2, info) == pytest.approx((3 * 0.15 + 2 * 0.075 + 2 * 0.60) / 1e6)


def test_call_in_a_batch_costs_its_share():
    """A batch has its discount where it is known, and else the full price: never a cost that is too low."""
    assert cost(100, 10, 0, ModelInfo("m", 1.0, 2.0, batch=0.5), batch=True) == pytest.approx(60 / 1e6)
    assert cost(100, 10, 0, ModelInfo("m", 1.0, 2.0, batch=0.5)) == pytest.approx(120 / 1e6)
    assert cost(100, 10, 0, ModelInfo("m", 1.0, 2.0), batch=True) == pytest.approx(120 / 1e6)
    assert cost(100, 10, 0, ModelInfo("m", batch=0.5), batch=True) is None


def test_model_may_be_known_without_a_price(tmp_path):
    """The context alone is worth an entry; the cost is then unknown, never 0."""
    path = tmp_path / "prices.json"
    path.write_text('{"mine": {"context": 4096}, "half": {"input": 1}}')
    prices = load_prices(path)
    assert (prices["mine"].context, cost(1, 1, 0, prices["mine"])) == (4096, None)
    assert cost(1, 1, 0, prices["half"]) is None


@pytest.mark.parametrize(
    ("today", "days"),
    [
        (date(2026, 10, 15), None),
        (date(2026, 10, 16), 90),
        (date(2027, 1, 13), 1),
        (date(2027, 1, 14), 0),
        (date(2027, 2, 1), -18),
    ],
)
def test_shutdown_is_warned_of_ninety_days_before(today, days):
    """From 90 days before there are days left; from the day itself on there are none."""
    info = ModelInfo("gpt-4o-mini", shutdown=date(2027, 1, 14))
    warning = shutdown_warning(info, today)
    assert (warning and warning.days) == days
    assert warning is None or warning == ModelWarning("gpt-4o-mini", date(2027, 1, 14), days)


def test_no_date_no_warning():
    """What is not known is not warned of."""
    assert shutdown_warning(None, date(2030, 1, 1)) is None
    assert shutdown_warning(ModelInfo("m"), date(2030, 1, 1)) is None


def test_unknown_price_is_none_and_free_is_zero():
    """Unknown model or unknown tokens: no cost is known. A price of 0 is a price."""
    info = ModelInfo("m", input=1.0, output=2.0)
    assert cost(10, 10, None, None) is None
    assert cost(None, 10, None, info) is None
    assert cost(10, None, None, info) is None
    assert cost(10, 10, 10, info) == pytest.approx(30 / 1e6)  # no price for cached tokens: the full one
    assert cost(10, 10, 99, ModelInfo("m", 1.0, 2.0, 0.5)) == pytest.approx(25 / 1e6)
    assert cost(10, 10, 0, ModelInfo("local", 0.0, 0.0)) == 0.0


@pytest.mark.parametrize(
    ("model_id", "found"),
    [
        ("gpt-4o-mini", "gpt-4o-mini"),
        ("gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
        ("gpt-4o-2024-05-13", "gpt-4o-2024-05-13"),  # has its own, higher price
        ("gpt-4o-mini-2024", None),
        ("gpt-4o-mini-2024-07-18-ft", None),
        ("gpt-4o-audio-preview", None),
        ("openai/gpt-4o-mini", None),
        ("", None),
        (None, None),
    ],
)
def test_model_is_found_by_name_or_dated_name_only(model_id, found):
    """A dated name is its model; nothing that merely looks alike is."""
    info = find_model(load_prices(), model_id)
    assert (info and info.model_id) == found


def test_shutdown_date_and_context_are_known():
    """The page can warn before a model goes, and the prompt knows its limit."""
    info = load_prices()["gpt-4o-mini"]
    assert (info.shutdown, info.context) == (date(2027, 1, 14), 128_000)


def test_price_file_of_the_instance_adds_and_replaces(tmp_path):
    """An entry of the file wins as a whole; the other models stay."""
    path = tmp_path / "prices.json"
    path.write_text('{"gpt-4o": {"input": 1, "output": 2}, "mine": {"input": 0, "output": 0, "context": 4096}}')
    prices = load_prices(path)
    assert prices["gpt-4o"] == ModelInfo("gpt-4o", 1.0, 2.0)
    assert prices["mine"].context == 4096
    assert prices["gpt-4.1"].input == 2.0


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "line 1"),
        ("[]", "must be an object"),
        ('{"m": 1}', "m must be an object"),
        ('{"m": {"input": "1", "output": 1}}', "m.input"),
        ('{"m": {"input": true, "output": 1}}', "m.input"),
        ('{"m": {"input": 1, "output": "free"}}', "m.output"),
        ('{"m": {"batch": 0}}', "m.batch"),
        ('{"m": {"batch": 1.5}}', "m.batch"),
        ('{"m": {"input": -1, "output": 1}}', "m.input"),
        ('{"m": {"input": 1, "output": 1, "cached_input": "x"}}', "m.cached_input"),
        ('{"m": {"input": 1, "output": 1, "context": 1.5}}', "m.context"),
        ('{"m": {"row": 0}}', "m.row"),
        ('{"m": {"input": 1, "output": 1, "shutdown": "soon"}}', "m.shutdown"),
        ('{"m": {"input": 1, "output": 1, "price": 1}}', "m.price"),
    ],
)
def test_bad_price_file_names_the_field(tmp_path, text, named):
    """The message names the file, the model and the field."""
    path = tmp_path / "prices.json"
    path.write_text(text)
    with pytest.raises(SettingError) as caught:
        load_prices(path)
    assert named in str(caught.value)
    assert str(path) in str(caught.value)


def test_missing_price_file_is_named(tmp_path):
    """A setting that points nowhere is said, not ignored."""
    with pytest.raises(SettingError, match=r"nowhere\.json"):
        load_prices(tmp_path / "nowhere.json")
