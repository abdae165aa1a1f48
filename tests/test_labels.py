"""Label schemas: what each one accepts, refuses, counts, compares and votes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labeler import strictjson
from labeler.errors import LabelError, SettingError
from labeler.labels import (
    EMPTY,
    NO_LABEL,
    Choice,
    Choices,
    Date,
    Fields,
    Keywords,
    Label,
    LabelSchema,
    Number,
    Pairwise,
    Ranking,
    Rating,
    Spans,
    Text,
    chrf,
)
from labeler.labels.base import overlap_f1

settings.register_profile("labeler", deadline=None)
settings.load_profile("labeler")

REVIEW = "사과가 달아요 😀 사과 껍질은 q\u0307 질겨요. Not sweet, not bad 👨‍👩‍👧 사과"

CHOICE = Choice(
    Label("positive", {"ko": "긍정", "en": "Positive"}, {"ko": "만족한다", "en": "Satisfied"}),
    Label("neutral", {"ko": "중립"}),
    Label("negative"),
)
FLAT = Choices(Label("기쁨"), Label("짜증"), Label("놀람"), Label("없음"), minimum=1, maximum=2, exclusive="없음")
TREE = Choices(
    Label("taste", {"ko": "맛", "en": "Taste"}),
    Label("price", {"ko": "가격", "en": "Price"}),
    Label("taste/sweetness", {"ko": "단맛", "en": "Sweetness"}, {"ko": "단 정도", "en": "How sweet"}, parent="taste"),
    Label("taste/texture", {"ko": "식감", "en": "Texture"}, parent="taste"),
    Label("price/value", {"ko": "가성비", "en": "Value"}, parent="price"),
)
RATING = Rating(1, 5, {1: Label("bad", {"ko": "나쁨", "en": "Bad"}), 5: Label("good", {"ko": "좋음", "en": "Good"})})
KEYWORDS = Keywords(maximum=4, longest=20)
SPANS = Spans(Label("aspect", {"ko": "대상"}), Label("opinion", {"ko": "평가"}))
TEXT = Text(minimum=0, maximum=10)
LONG = Text(minimum=2, maximum=10)
FIELDS = Fields(
    (Label("good", {"ko": "좋은 점", "en": "Good"}), TEXT), (Label("mood", {"ko": "기분", "en": "Mood"}), CHOICE)
)
SUMMARY = Fields((Label("good"), Text()), (Label("bad"), Text()))
NUMBER = Number(0, 10, 0.5, "kg")
COUNT = Number(minimum=1)
DATE = Date()
RANKING = Ranking(Label("taste", {"ko": "맛", "en": "Taste"}), Label("price"), Label("service"))
PAIR = Pairwise(Label("answer a"), Label("answer b"))
ANY_CHOICE = Choice(*CHOICE.labels, optional=True)
ANY_RATING = Rating(optional=True)
ANY_NUMBER = Number(optional=True)
ANY_DATE = Date(optional=True)
ANY_RANKING = Ranking(*RANKING.labels, optional=True)
OPTIONAL = {
    "any choice": ANY_CHOICE, "any rating": ANY_RATING, "any number": ANY_NUMBER, "any date": ANY_DATE,
    "any ranking": ANY_RANKING,
}  # fmt: skip
SCHEMAS = {
    "choice": CHOICE, "choices": FLAT, "tree": TREE, "rating": RATING, "keywords": KEYWORDS, "spans": SPANS,
    "text": TEXT, "bounded text": LONG, "fields": FIELDS, "summary": SUMMARY,
    "number": NUMBER, "count": COUNT, "date": DATE, "ranking": RANKING, "pairwise": PAIR, **OPTIONAL,
}  # fmt: skip
VOTES = ["choice", "choices", "tree", "rating", "number", "date", "ranking", "pairwise", *OPTIONAL]


def keyword(words: str, start: int) -> dict[str, Any]:
    return {"text": words, "start": start, "end": start + len(words)}


@st.composite
def stretches(draw: st.DrawFn, longest: int = 4) -> list[dict[str, Any]]:
    """Non-overlapping stretches of REVIEW that are not blank."""
    cuts = sorted(draw(st.sets(st.integers(0, len(REVIEW)), max_size=2 * longest)))
    pairs = zip(cuts[::2], cuts[1::2], strict=False)
    return [keyword(REVIEW[s:e], s) for s, e in pairs if REVIEW[s:e].strip() and e - s <= 20]


def answers(schema: LabelSchema) -> st.SearchStrategy[Any]:
    """Raw values that the schema accepts for REVIEW."""
    if schema.optional:
        given = next(s for s in (CHOICE, RATING, COUNT, DATE, RANKING) if type(s) is type(schema))
        return st.just(EMPTY) | answers(given)
    if isinstance(schema, Number):
        low, step = schema.minimum or 0, schema.step or 1
        return st.integers(0, 20).map(lambda n: low + n * step)
    if isinstance(schema, Date):
        return st.dates().map(lambda day: day.isoformat())
    if isinstance(schema, Ranking):
        return st.permutations([label.name for label in schema.labels])
    if isinstance(schema, Choice):
        return st.sampled_from([label.name for label in schema.labels])
    if isinstance(schema, Choices):
        names = st.lists(st.sampled_from([n.name for n in schema.leaves if n.name != schema.exclusive]), max_size=2)
        alone = st.just([schema.exclusive]) if schema.exclusive else st.just([])
        return names.filter(lambda chosen: len(set(chosen)) >= schema.minimum) | alone
    if isinstance(schema, Rating):
        return st.integers(schema.low, schema.high)
    if isinstance(schema, Keywords):
        return stretches()
    if isinstance(schema, Spans):
        return st.tuples(stretches(), st.lists(st.sampled_from(["aspect", "opinion"]), min_size=4, max_size=4)).map(
            lambda drawn: [{"label": label, **span} for span, label in zip(*drawn, strict=False)]
        )
    if isinstance(schema, Text):
        words = st.text(st.sampled_from("가나다ab é😀"), min_size=schema.minimum, max_size=10)
        return words.filter(lambda text: len(text.strip()) >= schema.minimum)
    assert isinstance(schema, Fields)
    return st.fixed_dictionaries({name: answers(part) for name, part in schema.parts.items()})


def values(schema: LabelSchema) -> st.SearchStrategy[Any]:
    """Canonical values of the schema."""
    return answers(schema).map(lambda raw: schema.parse(raw, REVIEW))


def fits(schema: dict[str, Any], value: Any) -> bool:
    """Whether a JSON value fits a JSON schema; knows only the keywords that we send, and insists on knowing them."""
    types = {"string": [str], "array": [list], "object": [dict], "integer": [int], "number": [int, float]}
    checks = {
        "type": lambda kind: type(value) in types[kind],
        "anyOf": lambda ways: any(fits(way, value) for way in ways),
        "format": lambda name: name == "date" and len(value) == 10,
        "enum": lambda names: value in names,
        "minLength": lambda least: len(value) >= least,
        "maxLength": lambda most: len(value) <= most,
        "minItems": lambda least: len(value) >= least,
        "maxItems": lambda most: len(value) <= most,
        "uniqueItems": lambda unique: not unique or len({strictjson.dumps(item) for item in value}) == len(value),
        "items": lambda inner: all(fits(inner, item) for item in value),
        "minimum": lambda least: value >= least,
        "maximum": lambda most: value <= most,
        "properties": lambda parts: all(fits(inner, value[name]) for name, inner in parts.items() if name in value),
        "required": lambda names: set(names) <= set(value),
        "additionalProperties": lambda allowed: allowed or set(value) <= set(schema["properties"]),
    }
    return all(checks[word](given) for word, given in schema.items())


@pytest.mark.parametrize(
    ("schema", "raw", "value"),
    [
        (CHOICE, "positive", "positive"),
        (FLAT, ["짜증", "기쁨"], ["기쁨", "짜증"]),
        (FLAT, ("기쁨", "기쁨"), ["기쁨"]),
        (FLAT, ["없음"], ["없음"]),
        (TREE, [], []),
        (TREE, ["price/value", "taste/texture", "price/value"], ["taste/texture", "price/value"]),
        (RATING, 5, 5),
        (TEXT, "", ""),
        (TEXT, "  cafe\u0301\r\n ", "café"),
        (LONG, "가나", "가나"),
        (FIELDS, {"mood": "neutral", "good": "달다."}, {"good": "달다.", "mood": "neutral"}),
        (FIELDS, {"mood": "neutral", "good": ""}, {"mood": "neutral"}),
        (FIELDS, {"mood": "neutral"}, {"mood": "neutral"}),
        (FIELDS, {"mood": "neutral", "good": None}, {"mood": "neutral"}),
        (SUMMARY, {"good": " ", "bad": ""}, {}),
        (SUMMARY, {}, {}),
        (NUMBER, 3.0, 3),
        (NUMBER, 2.5, 2.5),
        (Number(step=0.1), 0.3, 0.3),
        (Number(minimum=-1.5, step=1), -0.5, -0.5),
        (DATE, "2024-02-29", "2024-02-29"),
        (PAIR, "tie", "tie"),
        (PAIR, "answer b", "answer b"),
        (Number(step=1e-13), 9e15, 9 * 10**15),
        (RANKING, ("price", "taste", "service"), ["price", "taste", "service"]),
        *((schema, raw, EMPTY) for schema in OPTIONAL.values() for raw in (None, "")),
        (KEYWORDS, [], []),
        (KEYWORDS, ["달아요", "사과"], [keyword("사과", 0), keyword("달아요", 4)]),
        (KEYWORDS, ["사과", "사과", "사과"], [keyword("사과", 0), keyword("사과", 10), keyword("사과", 50)]),
        (KEYWORDS, ["사과가", "사과"], [keyword("사과가", 0), keyword("사과", 10)]),
        (KEYWORDS, ["😀"], [keyword("😀", 8)]),
        (KEYWORDS, ["q\u0307 질겨요"], [keyword("q\u0307 질겨요", 17)]),
        (KEYWORDS, ["👨‍👩‍👧 사과"], [keyword("👨‍👩‍👧 사과", 44)]),
        (KEYWORDS, [keyword("사과", 10)], [keyword("사과", 10)]),
        (KEYWORDS, [keyword("사과", 0), "사과"], [keyword("사과", 0), keyword("사과", 10)]),
        (SPANS, [], []),
        (SPANS, [{"label": "aspect", "text": "사과"}], [{"label": "aspect", **keyword("사과", 0)}]),
        (
            SPANS,
            [{"label": "opinion", "text": "사과"}, {"label": "aspect", "text": "사과"}],
            [{"label": "aspect", **keyword("사과", 0)}, {"label": "opinion", **keyword("사과", 0)}],
        ),
        (SPANS, [{"label": "aspect", **keyword("껍질", 13)}], [{"label": "aspect", **keyword("껍질", 13)}]),
    ],
)
def test_good_answer_becomes_its_canonical_value(schema, raw, value):
    """What the schema allows is read into one canonical form."""
    assert schema.parse(raw, REVIEW) == value


@pytest.mark.parametrize(
    ("schema", "raw", "kind"),
    [
        (CHOICE, "Positive", "case"),
        (CHOICE, " positive", "case"),
        (CHOICE, "POSITIVE\n", "case"),
        (CHOICE, "긍정", "unknown_label"),
        (CHOICE, "pos", "unknown_label"),
        (CHOICE, "", "unknown_label"),
        (CHOICE, None, "type"),
        (CHOICE, True, "type"),
        (CHOICE, 0, "type"),
        (CHOICE, ["positive"], "type"),
        (CHOICE, {"label": "positive"}, "type"),
        (FLAT, "기쁨", "type"),
        (FLAT, {"기쁨": True}, "type"),
        (FLAT, None, "type"),
        (FLAT, ["기쁨", None], "type"),
        (FLAT, [["기쁨"]], "type"),
        (FLAT, ["joy"], "unknown_label"),
        (FLAT, ["기쁨 "], "case"),
        (FLAT, [], "count"),
        (FLAT, ["기쁨", "짜증", "놀람"], "count"),
        (FLAT, ["기쁨", "없음"], "exclusive"),
        (TREE, ["taste"], "heading"),
        (TREE, ["taste/sweetness", "price"], "heading"),
        (TREE, ["Taste/Sweetness"], "case"),
        (TREE, ["단맛"], "unknown_label"),
        (TREE, ["sweetness"], "unknown_label"),
        (RATING, True, "type"),
        (RATING, 3.0, "type"),
        (RATING, "3", "type"),
        (RATING, None, "type"),
        (RATING, 0, "range"),
        (RATING, 6, "range"),
        (RATING, 10**300, "range"),
        (TEXT, None, "type"),
        (TEXT, 3, "type"),
        (TEXT, ["글"], "type"),
        (TEXT, "가" * 11, "length"),
        (TEXT, "a\x00b", "text"),
        (TEXT, "\ud800", "text"),
        (LONG, " a ", "length"),
        (NUMBER, "3", "type"),
        (NUMBER, True, "type"),
        (NUMBER, None, "type"),
        (NUMBER, 10.5, "range"),
        (NUMBER, -0.5, "range"),
        (NUMBER, 0.25, "range"),
        (Number(), float("nan"), "range"),
        (Number(), 10**20, "range"),
        (DATE, "2023-02-29", "range"),
        (DATE, "20240229", "range"),
        (DATE, "2024-W09-4", "range"),
        (DATE, "2024-02-29T00:00", "range"),
        (DATE, "", "range"),
        (DATE, 20240229, "type"),
        (PAIR, "both", "unknown_label"),
        (RANKING, "taste", "type"),
        (RANKING, ["taste", "price"], "count"),
        (RANKING, ["taste", "price", "service", "price"], "count"),
        (RANKING, ["taste", "price", "mood"], "unknown_label"),
        (RANKING, ["taste", "price", "Service"], "case"),
        (CHOICE, "", "unknown_label"),
        (RATING, "", "type"),
        (FIELDS, None, "type"),
        (FIELDS, ["달다.", "neutral"], "type"),
        (FIELDS, {"good": "달다."}, "missing_part"),
        (FIELDS, {"mood": None}, "missing_part"),
        (FIELDS, {"mood": "neutral", "Good": "달다."}, "unknown_part"),
        (FIELDS, {"mood": "neutral", 1: "달다."}, "unknown_part"),
        (FIELDS, {"mood": "중립"}, "unknown_label"),
        (FIELDS, {"mood": "neutral", "good": 1}, "type"),
        (FIELDS, {"mood": "neutral", "good": "가" * 11}, "length"),
        (KEYWORDS, "사과", "type"),
        (KEYWORDS, None, "type"),
        (KEYWORDS, [1], "type"),
        (KEYWORDS, [None], "type"),
        (KEYWORDS, [""], "empty"),
        (KEYWORDS, ["  "], "empty"),
        (KEYWORDS, ["달다"], "not_verbatim"),
        (KEYWORDS, ["not Sweet"], "not_verbatim"),
        (KEYWORDS, ["사과 달아요"], "not_verbatim"),
        (KEYWORDS, ["사과"] * 4, "overlap"),
        (KEYWORDS, ["사과가 달아요", "달아요"], "overlap"),
        (KEYWORDS, ["사", "과", "가", "달", "아"], "count"),
        (NUMBER, 10**350, "range"),
        (NUMBER, -(10**350), "range"),
        (KEYWORDS, [REVIEW[:21]], "length"),
        (KEYWORDS, [keyword(REVIEW[:21], 0)], "length"),
        (KEYWORDS, [keyword("사과", 1)], "offset"),
        (KEYWORDS, [keyword("사과", 900)], "offset"),
        (KEYWORDS, [keyword("사과", -2)], "range"),
        (KEYWORDS, [{"text": "사과", "start": 0, "end": 3}], "range"),
        (KEYWORDS, [{"text": "사과", "start": 2, "end": 0}], "range"),
        (KEYWORDS, [{"text": "", "start": 2, "end": 2}], "empty"),
        (KEYWORDS, [keyword(" ", 3)], "empty"),
        (KEYWORDS, [{"text": "사과", "start": False, "end": 2}], "type"),
        (KEYWORDS, [{"text": "사과", "start": 0.0, "end": 2}], "type"),
        (KEYWORDS, [{"text": None, "start": 0, "end": 2}], "type"),
        (KEYWORDS, [{"text": "사과"}], "type"),
        (KEYWORDS, [keyword("사과", 0) | {"note": "?"}], "type"),
        (KEYWORDS, [keyword("사과", 0), keyword("과가", 1)], "overlap"),
        (SPANS, "사과", "type"),
        (SPANS, ["사과"], "type"),
        (SPANS, [{"text": "사과"}], "type"),
        (SPANS, [{"label": "aspect"}], "type"),
        (SPANS, [{"label": "aspect", "text": "사과", "score": 1}], "type"),
        (SPANS, [{"label": "대상", "text": "사과"}], "unknown_label"),
        (SPANS, [{"label": "Aspect", "text": "사과"}], "case"),
        (SPANS, [{"label": "aspect", "text": "배"}], "not_verbatim"),
        (SPANS, [{"label": "aspect", "text": "사과"}] * 4, "overlap"),
        (SPANS, [{"label": "aspect", **keyword("사과", 1)}], "offset"),
        (SPANS, [{"label": "aspect", "text": "사과", "start": 0}], "type"),
    ],
)
def test_bad_answer_is_refused_with_its_kind(schema, raw, kind):
    """What the schema does not allow raises LabelError, and is never bent into a label."""
    with pytest.raises(LabelError) as caught:
        schema.parse(raw, REVIEW)
    assert caught.value.kind == kind
    assert str(caught.value)


def test_refusal_tells_case_from_unknown_and_lists_the_labels():
    """A person can tell a misspelled label from one that does not exist."""
    with pytest.raises(LabelError, match="'Neutral' is not the label 'neutral': it differs in case"):
        CHOICE.parse("Neutral")
    with pytest.raises(LabelError, match="'중립' is not one of the labels: positive, neutral, negative"):
        CHOICE.parse("중립")


def test_refusal_in_a_part_names_the_part():
    """The message for a part of Fields begins with its name."""
    with pytest.raises(LabelError, match=r"^mood: 'Neutral'"):
        FIELDS.parse({"mood": "Neutral"})


def test_keyword_needs_its_text():
    """A plain phrase cannot be placed without the record's text, while offsets can be checked for themselves."""
    with pytest.raises(LabelError, match="without its text"):
        KEYWORDS.parse(["사과"])
    assert KEYWORDS.parse([keyword("사과", 10)]) == [keyword("사과", 10)]


def test_keyword_moves_on_to_its_next_free_place():
    """Where its first place is taken, the next one counts, even if the two overlap each other."""
    assert KEYWORDS.parse(["a", "aba"], "ababa") == [keyword("a", 0), keyword("aba", 2)]


def test_offsets_count_code_points():
    """An emoji is one code point or several, as Python counts; the slice is the keyword."""
    for item in KEYWORDS.parse(["😀", "👨‍👩‍👧", "q\u0307"], REVIEW):
        assert REVIEW[item["start"] : item["end"]] == item["text"]


@pytest.mark.parametrize("name", SCHEMAS)
@given(data=st.data())
def test_canonical_value_is_stable(name, data):
    """parse(parse(x)) == parse(x), also after a round trip through JSON."""
    schema = SCHEMAS[name]
    value = data.draw(values(schema))
    assert schema.parse(value, REVIEW) == value
    assert schema.parse(strictjson.loads(strictjson.dumps(value)), REVIEW) == value


@pytest.mark.parametrize("name", [name for name in SCHEMAS if name not in ("keywords", "spans")])
@given(data=st.data())
def test_answer_is_read_back_as_the_value(name, data):
    """What exports train a model to say is read as the same label."""
    schema = SCHEMAS[name]
    value = data.draw(values(schema))
    assert schema.parse(schema.answer(value), REVIEW) == value


@pytest.mark.parametrize("name", ["keywords", "spans"])
@given(data=st.data())
def test_answer_without_offsets_is_read_back_as_the_value(name, data):
    """A backend answers without offsets; each phrase is placed at its first free place, and stays there."""
    schema = SCHEMAS[name]
    plain = schema.answer(data.draw(values(schema)))
    try:
        value = schema.parse(data.draw(st.permutations(plain)), REVIEW)
    except LabelError as error:
        # A short phrase may take the place that a longer one needs; that is refused, not guessed.
        assert error.kind == "overlap"
    else:
        assert schema.parse(schema.answer(value), REVIEW) == value


@pytest.mark.parametrize("name", SCHEMAS)
@given(data=st.data())
def test_json_schema_accepts_every_answer(name, data):
    """The JSON schema that is sent to a backend allows what parse allows."""
    schema = SCHEMAS[name]
    assert fits(schema.json_schema(), schema.answer(data.draw(values(schema))))


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("choice", "Positive"), ("choice", None), ("choices", []), ("choices", ["기쁨", "짜증", "놀람"]),
        ("tree", ["taste"]), ("rating", 6), ("rating", 2.5), ("keywords", [""]), ("keywords", ["a"] * 5),
        ("spans", [{"label": "aspect"}]),
        ("spans", [{"label": "대상", "text": "a"}]), ("text", "가" * 11), ("bounded text", "가"),
        ("fields", {"good": ""}), ("fields", {"good": "", "mood": "neutral", "x": 1}), ("summary", "글"),
    ],
)  # fmt: skip
def test_json_schema_refuses_what_parse_refuses(name, raw):
    """A backend that obeys the JSON schema cannot give these answers."""
    assert not fits(SCHEMAS[name].json_schema(), raw)


def test_json_schema_lists_the_leaves_only():
    """Headings of a tree are no answers."""
    assert TREE.json_schema()["items"]["enum"] == ["taste/sweetness", "taste/texture", "price/value"]


@pytest.mark.parametrize("name", SCHEMAS)
@given(data=st.data())
def test_value_counts_as_at_least_one_stratum(name, data):
    """Every value belongs to a stratum, and none twice to the same."""
    found = SCHEMAS[name].strata(data.draw(values(SCHEMAS[name])))
    assert found
    assert len(set(found)) == len(found)
    assert all(isinstance(stratum, str) for stratum in found)


@pytest.mark.parametrize(
    ("schema", "value", "strata"),
    [
        (CHOICE, "neutral", ("neutral",)),
        (FLAT, ["기쁨", "놀람"], ("기쁨", "놀람")),
        (TREE, [], (NO_LABEL,)),
        (RATING, 4, ("4",)),
        (KEYWORDS, [], (NO_LABEL,)),
        (KEYWORDS, [keyword("사과", 0)], ("keywords",)),
        (SPANS, [], (NO_LABEL,)),
        (
            SPANS,
            [{"label": "opinion", **keyword("사과", 0)}, {"label": "aspect", **keyword("달아요", 4)}],
            ("aspect", "opinion"),
        ),
        (TEXT, "", (NO_LABEL,)),
        (TEXT, "달다.", ("text",)),
        (SUMMARY, {}, (NO_LABEL,)),
        (SUMMARY, {"good": "달다.", "bad": "비싸다."}, ("good", "bad")),
    ],
)
def test_strata(schema, value, strata):
    """A value counts as its labels, its parts, or as text or nothing."""
    assert schema.strata(value) == strata


@pytest.mark.parametrize("name", SCHEMAS)
@given(data=st.data())
def test_agreement_is_a_similarity(name, data):
    """In [0, 1], symmetric, and 1 for equal values."""
    schema = SCHEMAS[name]
    a, b = data.draw(values(schema)), data.draw(values(schema))
    assert 0.0 <= schema.agreement(a, b) <= 1.0
    assert schema.agreement(a, b) == schema.agreement(b, a)
    assert schema.agreement(a, a) == 1.0


@pytest.mark.parametrize("name", SCHEMAS)
@given(data=st.data())
def test_disagreement_is_none_where_values_are_equal(name, data):
    """Symmetric, and at least 0: in no bounds, as only ratios of it count."""
    schema = SCHEMAS[name]
    a, b = data.draw(values(schema)), data.draw(values(schema))
    assert schema.disagreement(a, b) == schema.disagreement(b, a) >= 0.0
    assert schema.disagreement(a, a) == 0.0


@pytest.mark.parametrize("name", SCHEMAS)
@given(data=st.data())
def test_a_majority_is_a_value_or_none(name, data):
    """What two of three say is what most say; of others comes a value that the schema takes, or none."""
    schema = SCHEMAS[name]
    a, b, c = (data.draw(values(schema)) for _ in range(3))
    assert schema.majority([a, a, b]) == schema.majority([b, a, a]) == a
    found = schema.majority([a, b, c])
    assert found is None or schema.parse(found, REVIEW) == found


@pytest.mark.parametrize(
    ("schema", "given", "majority"),
    [
        pytest.param(CHOICE, ["positive", "positive", "neutral"], "positive", id="two of three"),
        pytest.param(CHOICE, ["positive", "neutral"], None, id="a tie"),
        pytest.param(CHOICE, ["positive", "positive", "neutral", "negative"], None, id="half are not most"),
        pytest.param(CHOICE, ["positive"], "positive", id="one"),
        pytest.param(CHOICE, [], None, id="nobody"),
        pytest.param(ANY_CHOICE, ["", "", "neutral"], "", id="most left it out"),
        pytest.param(RATING, [3, 5, 5], 5, id="a rating"),
        pytest.param(RATING, [3, 4, 5], None, id="no median"),
        pytest.param(TREE, [["taste/texture"], ["taste/texture", "price/value"], []], ["taste/texture"], id="labels"),
        pytest.param(TREE, [["taste/texture"], ["price/value"], []], None, id="few left all out"),
        pytest.param(TREE, [["taste/texture"], [], []], [], id="most left all out"),
        pytest.param(FLAT, [["기쁨", "짜증"], ["짜증", "놀람"], ["기쁨", "놀람"]], None, id="three where two may be"),
        pytest.param(
            KEYWORDS, [[keyword("사과", 0)], [keyword("사과", 0), keyword("달아요", 4)], [keyword("사과가", 0)]],
            [keyword("사과", 0)], id="keywords at their place",
        ),
        pytest.param(
            SPANS,
            [[{"label": label, **keyword("사과", 0)}] for label in ("aspect", "aspect", "opinion")],
            [{"label": "aspect", **keyword("사과", 0)}], id="spans with their label",
        ),
        pytest.param(TEXT, ["달다", "달아요", "달콤"], None, id="texts"),
        pytest.param(SUMMARY, [{"good": "달다"}, {"good": "달다", "bad": "질김"}, {}], {"good": "달다"}, id="parts"),
        pytest.param(SUMMARY, [{"good": "달다"}, {"good": "달아요"}, {"bad": "질김"}], None, id="a part without one"),
    ],
)  # fmt: skip
def test_majority_by_hand(schema, given, majority):
    """More than half: of the values, or of the lists for each label and each stretch. It is never guessed."""
    assert schema.majority(given) == majority


@pytest.mark.parametrize(
    ("schema", "a", "b", "agreement"),
    [
        (CHOICE, "positive", "negative", 0.0),
        (FLAT, ["기쁨", "놀람"], ["기쁨"], 2 / 3 * 1 / 2),
        (FLAT, ["기쁨", "놀람"], ["놀람", "짜증"], 1 / 3 * 1 / 3),
        (FLAT, ["기쁨"], ["짜증"], 0.0),
        (TREE, ["taste/sweetness", "taste/texture"], [leaf.name for leaf in TREE.leaves], 2 / 3 * 2 / 3),
        (TREE, [], [], 1.0),
        (TREE, [], ["price/value"], 0.0),
        (RATING, 1, 5, 0.0),
        (RATING, 2, 3, 1 - 1 / 16),
        (RATING, 1, 3, 1 - 4 / 16),
        (KEYWORDS, [keyword("사과가 달", 0)], [keyword("달아요 😀", 4)], 0.2),
        (KEYWORDS, [keyword("사과가", 0)], [], 0.0),
        (SPANS, [{"label": "aspect", **keyword("사과", 0)}], [{"label": "opinion", **keyword("사과", 0)}], 0.0),
        (
            SPANS,
            [{"label": "aspect", **keyword("사과", 0)}],
            [{"label": "aspect", **keyword("사과", 0)}, {"label": "aspect", **keyword("껍질", 13)}],
            2 / 3,
        ),
        (NUMBER, 2.5, 2.5, 1.0),
        (NUMBER, 2.5, 3, 0.0),
        (DATE, "2024-02-29", "2024-03-01", 0.0),
        (RANKING, ["taste", "price", "service"], ["service", "price", "taste"], 0.0),
        (RANKING, ["taste", "price", "service"], ["price", "taste", "service"], 2 / 3),
        (ANY_RATING, "", 3, 0.0),
        (ANY_RANKING, "", ["price", "taste", "service"], 0.0),
        (TEXT, "abc", "abd", (2 / 3 + 1 / 2 + 0) / 3),
        (SUMMARY, {"good": "abc"}, {"good": "abc", "bad": "x"}, 0.5),
        (SUMMARY, {"good": "abc"}, {"good": "abd"}, 7 / 18),
        (SUMMARY, {}, {"bad": "x"}, 0.0),
        (FIELDS, {"mood": "neutral", "good": "a"}, {"mood": "neutral"}, 0.5),
    ],
)
def test_agreement_by_hand(schema, a, b, agreement):
    """MASI, interval, Kendall's tau, span F1 soft and exact, chrF and the mean of parts, worked out by hand."""
    assert schema.agreement(a, b) == pytest.approx(agreement)


@pytest.mark.parametrize(
    ("a", "b", "score"),
    [
        ("", "", 1.0),
        ("a", "", 0.0),
        ("달다.", "달 다.", 1.0),
        ("ab", "cd", 0.0),
        ("abc", "abd", 7 / 18),
        ("aab", "ab", (4 / 5 + 2 / 3 + 0) / 3),
    ],
)
def test_chrf_by_hand(a, b, score):
    """The mean of the F1 over n-grams, without spaces and without orders that neither text reaches."""
    assert chrf(a, b) == pytest.approx(score)


@pytest.mark.parametrize(
    ("a", "b", "score"),
    [
        ([], [], 1.0),
        ([(0, 4)], [], 0.0),
        ([(0, 4)], [(4, 8)], 0.0),
        ([(0, 4)], [(2, 6)], 0.5),
        ([(0, 10)], [(0, 2)], 2 * 0.2 * 1 / 1.2),
        ([(0, 4)], [(0, 2), (10, 12)], 0.5),
        ([(0, 2), (5, 9)], [(0, 2), (7, 9)], 2 * 0.75 * 1 / 1.75),
    ],
)
def test_soft_f1_by_hand(a, b, score):
    """Each range counts by its best overlap."""
    assert overlap_f1(a, b) == pytest.approx(score)


@pytest.mark.parametrize(
    ("schema", "votes", "winner"),
    [
        (CHOICE, [("negative", 0.5), ("positive", 0.2), ("positive", 0.2)], ("negative", 0.5 / 0.9)),
        (CHOICE, [("negative", 1.0), ("neutral", 1.0)], ("neutral", 0.5)),
        (CHOICE, [("gone", 5.0), ("neutral", 1.0)], ("neutral", 1.0)),
        (CHOICE, [("neutral", 0.0)], None),
        (CHOICE, [("gone", 1.0)], None),
        (CHOICE, [], None),
        (FLAT, [(["기쁨", "놀람"], 1.0), (["기쁨"], 1.0)], (["기쁨", "놀람"], 0.75)),
        (FLAT, [(["기쁨"], 1.0), (["짜증"], 1.0), (["놀람"], 1.5)], (["놀람"], 1.5 / 3.5)),
        (FLAT, [(["없음"], 2.0), (["기쁨"], 1.0)], (["없음"], 2 / 3)),
        (FLAT, [(["없음"], 1.0), (["기쁨"], 1.0)], (["기쁨"], 0.5)),
        (FLAT, [(["기쁨", "짜증"], 1.0), (["짜증", "놀람"], 1.0)], (["기쁨", "짜증"], 3 / 4)),
        (FLAT, [(["기쁨"], 2.0), (["놀람"], 1.0), (["짜증"], 0.0)], (["기쁨"], 2 / 3)),
        (TREE, [(["price/value", "taste/sweetness"], 1.0), (["price/value"], 2.0)], (["price/value"], 1.0)),
        (FLAT, [(["기쁨"], 0.0)], None),
        (FLAT, [(["사라짐"], 1.0)], None),
        (TREE, [(["price/value"], 1.0), ([], 2.0)], ([], 2 / 3)),
        (TREE, [([], 1.0)], ([], 1.0)),
        (RATING, [(1, 1.0), (4, 1.0), (5, 1.0)], (4, 2 / 3)),
        (RATING, [(1, 1.0), (5, 1.0)], (1, 0.5)),
        (RATING, [(1, 1.0), (5, 3.0)], (5, 0.75)),
        (RATING, [(9, 5.0), (2, 1.0)], (2, 1.0)),
        (RATING, [(3, 0.0)], None),
        (RATING, [], None),
        (NUMBER, [(1, 1.0), (2.5, 1.0), (9, 1.0)], (2.5, 1 / 3)),
        (NUMBER, [(1, 1.0), (9, 1.0)], (1, 0.5)),
        (NUMBER, [(0.25, 9.0), (3, 1.0)], (3, 1.0)),
        (NUMBER, [("gone", 9.0)], None),
        (ANY_NUMBER, [("", 3.0), (2, 1.0), (4, 1.0)], ("", 0.6)),
        (ANY_NUMBER, [("", 1.0), (2, 1.0), (4, 2.0)], (4, 0.5)),
        (DATE, [("2024-01-01", 1.0), ("2024-01-03", 1.5)], ("2024-01-03", 0.6)),
        (DATE, [("2024-01-03", 1.0), ("2024-01-01", 1.0)], ("2024-01-03", 0.5)),
        (DATE, [("", 1.0)], None),
        (
            RANKING,
            [(["taste", "price", "service"], 1.0), (["service", "price", "taste"], 2.0)],
            (["service", "price", "taste"], 1 / 3),
        ),
        (RANKING, [(["taste", "price"], 1.0)], None),
        (ANY_CHOICE, [("", 2.0), ("positive", 1.0)], ("", 2 / 3)),
        (KEYWORDS, [([], 1.0)], None),
        (SPANS, [([], 1.0)], None),
        (TEXT, [("달다.", 1.0)], None),
        (SUMMARY, [({}, 1.0)], None),
        (FIELDS, [({"mood": "neutral"}, 1.0)], None),
    ],
)
def test_vote(schema, votes, winner):
    """The weighted winner and its share: first label on a tie, the mean share of a set, the median of a scale."""
    found = schema.vote(votes)
    if winner is None:
        assert found is None
    else:
        assert found[0] == winner[0]
        assert found[1] == pytest.approx(winner[1])


def test_parts_vote_alone():
    """Where all parts can vote, so can Fields: the score is their mean, and an empty winner is left out."""
    schema = Fields((Label("mood"), CHOICE), (Label("topics"), TREE))
    votes = [({"mood": "neutral"}, 2.0), ({"mood": "positive", "topics": ["price/value"]}, 1.0)]
    assert schema.vote(votes) == ({"mood": "neutral"}, pytest.approx(2 / 3))


@pytest.mark.parametrize("name", VOTES)
@given(data=st.data())
def test_winner_is_a_value_of_the_schema(name, data):
    """Whatever the votes, the winner is canonical, was voted for, and its score is in [0, 1]."""
    schema = SCHEMAS[name]
    votes = data.draw(st.lists(st.tuples(values(schema), st.floats(0, 1e6)), max_size=12))
    found = schema.vote(votes)
    if not any(weight > 0 for _, weight in votes):
        assert found is None
    elif found is not None:
        value, score = found
        assert schema.parse(value) == value
        assert 0.0 <= score <= 1.0
        voted = {stratum for vote, weight in votes if weight > 0 for stratum in schema.strata(vote)}
        assert set(schema.strata(value)) <= voted | {NO_LABEL}


@pytest.mark.parametrize("name", VOTES)
@given(data=st.data())
def test_unanimous_vote_is_certain(name, data):
    """Where all agree, they win with a score of 1."""
    schema = SCHEMAS[name]
    value = data.draw(values(schema))
    weights = data.draw(st.lists(st.floats(0.01, 1), min_size=1, max_size=12))
    winner, score = schema.vote([(value, weight) for weight in weights])
    assert winner == value
    assert score <= 1.0
    assert score == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("schema", "language", "lines"),
    [
        (CHOICE, "ko", ["- positive (긍정): 만족한다", "- neutral (중립)", "- negative"]),
        (CHOICE, "en", ["- positive (Positive): Satisfied", "- neutral", "- negative"]),
        (
            TREE,
            "ko",
            ["[맛]", "- taste/sweetness: 단맛. 단 정도", "- taste/texture: 식감", "[가격]", "- price/value: 가성비"],
        ),
        (RATING, "en", ["- 1: Bad", "- 5: Good"]),
        (NUMBER, "ko", ["- 숫자, 0 이상, 10 이하, 0.5 간격, 단위 kg (답변에는 숫자만)"]),
        (ANY_DATE, "en", ["- a date: YYYY-MM-DD", '- "": nothing of this in the text']),
        (RANKING, "en", ["- taste (Taste)", "- price", "- service"]),
        (KEYWORDS, "ko", [""]),
        (
            FIELDS,
            "en",
            ["- good (Good)", "- mood (Mood)", "mood:", "- positive (Positive): Satisfied", "- neutral", "- negative"],
        ),
    ],
)
def test_describe(schema, language, lines):
    """A prompt lists the exact names with titles and definitions, a tree under its headings."""
    assert schema.describe(language).split("\n") == lines


@pytest.mark.parametrize(
    ("schema", "value", "language", "shown"),
    [
        (CHOICE, "positive", "ko", "긍정"),
        (CHOICE, "negative", "ko", "negative"),
        (CHOICE, "gone", "ko", "gone"),
        (TREE, ["taste/sweetness", "price/value"], "en", "Taste > Sweetness, Price > Value"),
        (RATING, 5, "ko", "5 (좋음)"),
        (RATING, 3, "ko", "3"),
        (NUMBER, 2.5, "ko", "2.5 kg"),
        (DATE, "2024-02-29", "ko", "2024-02-29"),
        (RANKING, ["price", "taste", "service"], "ko", "price > 맛 > service"),
        (KEYWORDS, [keyword("사과", 0), keyword("달아요", 4)], "ko", "사과, 달아요"),
        (SPANS, [{"label": "aspect", **keyword("사과", 0)}], "ko", "사과 [대상]"),
        (TEXT, "달다.", "en", "달다."),
        (FIELDS, {"good": "달다.", "mood": "positive"}, "ko", "좋은 점: 달다.\n기분: 긍정"),
        *((schema, EMPTY, "ko", "") for schema in OPTIONAL.values()),
    ],
)
def test_render(schema, value, language, shown):
    """A value is shown by its titles; a label that no longer exists by its name, and what was left out by nothing."""
    assert schema.render(value, language) == shown


@pytest.mark.parametrize("schema", OPTIONAL.values(), ids=lambda schema: schema.kind)
def test_what_was_left_out_has_no_color(schema):
    assert schema.color(EMPTY) == ""


@pytest.mark.parametrize(
    ("schema", "empty"),
    [
        (CHOICE, None), (FLAT, None), (TREE, []), (RATING, None), (KEYWORDS, []), (SPANS, []), (TEXT, ""), (LONG, None),
        (SUMMARY, {}), (FIELDS, None), (NUMBER, None), (DATE, None), (RANKING, None),
        *((schema, "") for schema in OPTIONAL.values()),
    ],
)  # fmt: skip
def test_empty(schema, empty):
    """A form starts empty only where empty is an answer."""
    assert schema.empty() == empty
    if empty is not None:
        assert schema.parse(empty, REVIEW) == empty


@pytest.mark.parametrize("schema", [CHOICE, TREE, SPANS], ids=lambda schema: schema.kind)
def test_with_labels_replaces_the_labels(schema):
    """A project may bring its own labels; the schema it came from stays as it was."""
    before = schema.labels
    changed = schema.with_labels([Label("new", {"ko": "새것"})])
    assert [label.name for label in changed.labels] == ["new"]
    assert type(changed) is type(schema)
    assert schema.labels == before


def test_with_labels_keeps_the_bounds():
    """Minimum, maximum and the exclusive label go along, unless that label is gone."""
    kept = FLAT.with_labels([Label("없음"), Label("설렘")])
    gone = FLAT.with_labels([Label("기쁨"), Label("설렘")])
    assert (kept.minimum, kept.maximum, kept.exclusive) == (1, 2, "없음")
    assert (gone.minimum, gone.maximum, gone.exclusive) == (1, 2, None)


@pytest.mark.parametrize("schema", [RATING, KEYWORDS, TEXT, NUMBER, DATE, RANKING], ids=lambda schema: schema.kind)
def test_schema_without_labels_refuses_labels(schema):
    """A scale, keywords, a text, a number, a day and an order have no labels to replace."""
    with pytest.raises(SettingError, match="no labels to change"):
        schema.with_labels([Label("new")])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Choice(), "at least one label"),
        (lambda: Choice(Label("a"), Label("a")), "'a' appears twice"),
        (lambda: Choices(Label("a", parent="b")), "unknown parent 'b'"),
        (lambda: Choices(Label("a"), Label("b", parent="a"), Label("c", parent="b")), "third level"),
        (lambda: Choices(Label("a"), exclusive="b"), "exclusive label 'b'"),
        (lambda: Choices(Label("a"), Label("b", parent="a"), exclusive="a"), "exclusive label 'a'"),
        (lambda: Choices(Label("a"), minimum=2, maximum=1), "cannot both hold"),
        (lambda: Choices(Label("a"), maximum=0), "cannot both hold"),
        (lambda: Rating(5, 5), "no points between"),
        (lambda: Number(3, 3), "no numbers from 3 to 3"),
        (lambda: Number(step=0), "must be above 0"),
        (lambda: Ranking(Label("a")), "at least two items"),
        (lambda: Pairwise(Label("a"), Label("a")), "'a' appears twice"),
        (lambda: Pairwise(Label("a"), Label("b", retired=True)), "none of them retired"),
        (lambda: PAIR.with_labels([Label("answer a"), Label("other"), Label("tie")]), "only their titles"),
        (lambda: Ranking(Label("a"), Label("b", retired=True)), "none of them retired"),
        (lambda: Fields(), "different names"),
        (lambda: Fields((Label("a"), TEXT), (Label("a"), TEXT)), "different names"),
        (lambda: Fields((Label("a"), SUMMARY)), "cannot be Fields again"),
    ],
)
def test_impossible_schema_is_refused(make, message):
    """A schema that cannot be meant fails when it is made, not when it is used."""
    with pytest.raises(SettingError, match=message):
        make()


@pytest.mark.parametrize(
    ("schema", "cell", "value"),
    [
        (NUMBER, "2.5", 2.5),
        (NUMBER, "3 kg", 3),
        (NUMBER, "３．５ｋｇ", 3.5),
        (Number(unit="원"), "12,500원", 12500),
        (Number(), "-1,200.50", -1200.5),
        (Number(), 4.0, 4),
        (DATE, "2024-02-29 00:00:00", "2024-02-29"),
        (DATE, "2024. 2. 9.", "2024-02-09"),
        (DATE, "2024년 12월 9일", "2024-12-09"),
        (DATE, "2024/02/09", "2024-02-09"),
        (RANKING, "맛 > service > price", ["taste", "service", "price"]),
        (RANKING, ["맛", "price", "service"], ["taste", "price", "service"]),
        (ANY_RATING, "", ""),
        (ANY_RANKING, "", ""),
    ],
)
def test_cells_are_read_as_tables_write_them(schema, cell, value):
    """A unit, separators of thousands, the ways to write a day, titles and signs between items."""
    assert schema.parse(schema.read_cell(cell), REVIEW) == value


@pytest.mark.parametrize(
    ("schema", "cell"),
    [
        (NUMBER, "2.5 lb"), (NUMBER, "about 3"), (Number(), "1,20"), (Number(), "1.200,5"), (DATE, "02/09/2024"),
        (DATE, "24-02-09"), (DATE, "2024-02-09 13:00"), (RANKING, "taste > price"),
        (RANKING, "taste = price > service"),
    ],
)  # fmt: skip
def test_cells_that_could_mean_two_things_are_refused(schema, cell):
    """Another unit, a comma that may be a point, a day that may be a month: nothing is guessed."""
    with pytest.raises(LabelError):
        schema.parse(schema.read_cell(cell), REVIEW)


@pytest.mark.parametrize(
    ("schema", "a", "b", "distance"),
    [
        (NUMBER, 2.5, 4, 1.5), (DATE, "2024-02-28", "2024-03-01", 2.0), (ANY_NUMBER, "", 3, None),
        (ANY_DATE, "", "", None), (RATING, 1, 5, None), (CHOICE, "positive", "negative", None),
    ],
)  # fmt: skip
def test_distance_is_in_the_unit_of_the_label(schema, a, b, distance):
    assert schema.distance(a, b) == distance


@pytest.mark.parametrize("name", OPTIONAL)
def test_what_may_be_left_out_has_no_closed_list(name):
    """No score stands for nothing, so nothing scores or learns the labels; and nothing counts as the empty stratum."""
    schema = OPTIONAL[name]
    assert schema.candidates() == {} and not schema.one_of_labels
    assert schema.strata(EMPTY) == (NO_LABEL,) and schema.says_nothing(EMPTY)


def test_a_part_that_is_left_out_is_none_of_the_value():
    """An optional rating is to Fields what an empty text is."""
    schema = Fields((Label("taste"), ANY_RATING), (Label("delivery"), ANY_RATING))
    assert schema.parse({"taste": 4, "delivery": None}) == schema.parse({"taste": 4, "delivery": ""}) == {"taste": 4}
    assert schema.empty() == {} and schema.answer({"taste": 4}) == {"taste": 4, "delivery": ""}


def test_a_comparison_may_be_titled_otherwise():
    """What is compared stays, in its order: two parts of the record by their names, and the tie."""
    changed = PAIR.with_labels([Label("tie"), Label("answer b", {"en": "B"}), Label("answer a")])
    assert isinstance(changed, Pairwise) and changed.sides == PAIR.sides == ("answer a", "answer b")
    assert changed.render("answer b", "en") == "B"


def test_tree_knows_leaves_and_groups():
    """A form draws the leaves under their headings."""
    assert [label.name for label in TREE.leaves] == ["taste/sweetness", "taste/texture", "price/value"]
    assert [(parent.name, [leaf.name for leaf in leaves]) for parent, leaves in TREE.groups()] == [
        ("taste", ["taste/sweetness", "taste/texture"]),
        ("price", ["price/value"]),
    ]
    assert [parent for parent, _ in FLAT.groups()] == [None]


def test_labels_without_a_color_get_different_ones():
    """Every label has a color, and a given one is kept."""
    colors = [label.color for label in Choice(Label("a"), Label("b", color="#123456"), Label("c")).labels]
    assert colors[1] == "#123456"
    assert len(set(colors)) == 3


@pytest.mark.parametrize(
    "label",
    [Label("a"), Label("단맛", {"ko": "단맛", "en": "Sweet"}, {"en": "How sweet"}, "#123456", "맛")],
    ids=["bare", "full"],
)
def test_label_goes_through_json(label):
    """from_json reads what to_json wrote."""
    assert Label.from_json(strictjson.loads(strictjson.dumps(label.to_json()))) == label


@pytest.mark.parametrize(
    "raw",
    [
        None, "a", {}, {"name": ""}, {"name": " "}, {"name": 1}, {"name": "a", "title": "A"},
        {"name": "a", "title": None}, {"name": "a", "definition": {"ko": 1}}, {"name": "a", "color": ["red"]},
        {"name": "a", "parent": ["b"]},
    ],
)  # fmt: skip
def test_bad_label_is_refused(raw):
    """A label in a settings form is checked, and the message is a SettingError."""
    with pytest.raises(SettingError):
        Label.from_json(raw)


def test_label_falls_back_to_its_name_and_any_definition():
    """A missing translation never leaves a hole in the page."""
    label = Label("sweet", {"ko": "단맛"}, {"ko": "단 정도"})
    assert (label.titled("ko"), label.titled("en")) == ("단맛", "sweet")
    assert label.defined("en") == "단 정도"


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_describes_itself_as_json(name):
    """The description for manifests and the API is strict JSON with the kind of the schema."""
    schema = SCHEMAS[name]
    described = strictjson.loads(strictjson.dumps(schema.to_json()))
    assert described["kind"] == schema.kind
    assert [label["name"] for label in described.get("labels", [])] == [label.name for label in schema.labels]


@pytest.mark.parametrize(
    ("schema", "raw", "item"),
    [
        (Fields((Label("good"), Keywords())), {"good": ["sour"]}, "good"),
        (Fields((Label("stars"), Rating(1, 5))), {}, "stars"),
        (Choice(Label("good"), Label("bad")), "fine", "fine"),
        (Keywords(), ["crisp", "sour"], "sour"),
        (Keywords(), "crisp", ""),
    ],
)
def test_a_refused_value_says_what_of_it_is_wrong(schema: LabelSchema, raw: object, item: str) -> None:
    """The part, the label or the keyword; nothing where the value as a whole cannot be."""
    with pytest.raises(LabelError) as caught:
        schema.parse(raw, "crisp apples")
    assert caught.value.item == item
