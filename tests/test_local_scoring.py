"""Closed lists of labels are scored by local weights: as exactly as one plain forward a candidate, only faster."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from labeler_plugins import emotion, sentiment
from local_models import gemma3_270m_folder, smollm2_folder
from tiny_models import MODELS, small
from tiny_models import one_thread as one_thread

from labeler.backends.local.memory import BatchSize
from labeler.backends.local.prefix import Prefix, PrefixCache, common_length
from labeler.demo import reviews
from labeler.labels import Rating
from labeler.prompts import PromptStyle
from labeler.records import Record
from labeler.task import Task

torch = pytest.importorskip("torch", reason="torch is not installed (labeler-rag[local])")
pytest.importorskip("transformers", reason="transformers is not installed (labeler-rag[local])")

from labeler.backends.local import scoring  # noqa: E402
from labeler.backends.local.chat import Chat  # noqa: E402
from labeler.backends.local.loading import LoadOptions, load  # noqa: E402
from labeler.backends.local.scoring import Scored, probabilities, score  # noqa: E402
from labeler.backends.local.trials import TREES  # noqa: E402

# Prompts of unlike length that begin alike, and answers that share a head, a tail, and branch in between.
HEAD = list(range(10, 60))
PROMPTS = [[*HEAD, 61, 62], HEAD + [63] * 9, HEAD[:45] + [64] * 20, [*HEAD, 61], [*HEAD, 65, 66, 67]]
ANSWERS = [[70, 71, 80, 90], [70, 71, 81, 82, 90], [70, 71, 81, 83, 84, 85, 90], [70, 71, 81, 82, 86, 90]]
INNER = 9
"""Nodes of the tree of ANSWERS with a node below: all but 90, with which each answer ends."""


def plain(loaded: Any, prompt: Sequence[int], candidate: Sequence[int]) -> float:
    """Return the log-likelihood of one candidate by one forward, with nothing shared, padded or cached."""
    with torch.inference_mode():
        ids = torch.tensor([[*prompt, *candidate]], device=loaded.device)
        logits = loaded.model(input_ids=ids, logits_to_keep=len(candidate) + 1).logits[0]
    logs = logits.double().log_softmax(-1)
    return sum(float(logs[n, token]) for n, token in enumerate(candidate))


def furthest(loaded: Any, prompts: Sequence[Any], candidates: Sequence[Any], found: Sequence[Scored]) -> float:
    """Return the largest difference of any score from the plain one."""
    return max(
        abs(plain(loaded, prompt, candidate) - value)
        for prompt, answers, scored in zip(prompts, candidates, found, strict=True)
        for candidate, value in zip(answers, scored.log_likelihoods, strict=True)
    )


def prompts_of(loaded: Any, task: Task, rows: Sequence[Any], language: str) -> list[list[int]]:
    chat = Chat(loaded.tokenizer)
    made = [Record(n, 1, row["id"], row["text"]) for n, row in enumerate(rows, 1)]
    return [chat.prompt_ids(task.build_prompt(record, (), PromptStyle(language=language))) for record in made]


def tried(loaded: Any) -> bool:
    """Return what the trial of scoring all answers at once has come to."""
    return TREES.works(loaded.model, lambda: pytest.fail("it was never tried"))


def answers_of(loaded: Any, task: Task) -> list[list[int]]:
    return [Chat(loaded.tokenizer).answer_ids(task.answer(value)) for value in task.schema.candidates().values()]


@pytest.fixture(scope="module")
def smollm2() -> Any:
    return load(LoadOptions(str(smollm2_folder()), device="cpu"))


@pytest.fixture(scope="module")
def llama() -> Any:
    return small("llama")


@pytest.mark.parametrize("name", MODELS)
def test_scores_are_those_of_a_plain_forward(name: str) -> None:
    """Sharing, packing and the tree change nothing, whatever the attention: with a cache, without, and again."""
    kind, changes = MODELS[name]
    loaded, candidates = small(kind, **changes), [ANSWERS] * len(PROMPTS)
    cache = PrefixCache()
    for given in (None, cache, cache):
        found = score(loaded, PROMPTS, candidates, 4, given)
        assert furthest(loaded, PROMPTS, candidates, found) < 1e-3
    assert tried(loaded)
    assert len(cache) == 1


def test_a_model_without_keys_and_values_is_read_one_by_one() -> None:
    """A state space model takes no mask and no positions; that is found out, and its scores are right."""
    loaded = small("mamba", state_size=4)
    found = score(loaded, PROMPTS[:2], [ANSWERS] * 2, 4, PrefixCache())
    assert not tried(loaded)
    assert furthest(loaded, PROMPTS[:2], [ANSWERS] * 2, found) < 1e-3


def test_real_reviews_score_as_in_a_plain_forward(smollm2: Any) -> None:
    """Korean and English reviews, with labels of many tokens each, through the real chat template."""
    task = emotion.register_tasks()[0]
    rows = [row for row in reviews() if len(row["text"]) < 60][:2]
    prompts = [prompt[-120:] for prompt in prompts_of(smollm2, task, rows, "ko")]
    answers = [answers_of(smollm2, task)[n] for n in (0, 20, 43)]
    assert max(map(len, answers)) >= 20
    found = score(smollm2, prompts, [answers] * len(prompts), 2, PrefixCache())
    assert furthest(smollm2, prompts, [answers] * len(prompts), found) < 1e-3


def test_prompts_longer_than_the_window_of_a_real_model_score_as_in_a_plain_forward() -> None:
    """Gemma 3 sees 512 tokens in five of six layers; a shared head and a tree beyond them are still exact."""
    loaded = load(LoadOptions(str(gemma3_270m_folder()), device="cpu"))
    task = sentiment.register_tasks()[0]
    head, *own = (Chat(loaded.tokenizer).answer_ids(row["text"]) for row in reviews()[:3])
    prompts = [(head * 20)[:540] + ids[:30] for ids in own]
    answers = [answers_of(loaded, task)[:2]] * len(prompts)
    assert furthest(loaded, prompts, answers, score(loaded, prompts, answers, 2, PrefixCache())) < 1e-3
    assert tried(loaded)


def test_scored_labels_are_those_of_greedy_generation(smollm2: Any) -> None:
    """On all but one review in six at most, the best score has the label that constrained greedy decoding writes."""
    schema = sentiment.register_tasks()[0].schema
    task = Task("sentiment", schema, {"en": "Sentiment"}, {"en": "Is the review positive, neutral or negative?"})
    # Reviews for which this small model has an opinion, which is not always the same one.
    chosen = ("en-007", "en-005", "en-025", "en-034", "ko-fruit-006", "ko-house-013")
    rows = [row for row in reviews() if row["id"] in chosen]
    prompts, answers = prompts_of(smollm2, task, rows, "en"), answers_of(smollm2, task)
    found = score(smollm2, prompts, [answers] * len(prompts), 8, PrefixCache())
    best = [answers[int(probabilities(scored).argmax())] for scored in found]
    written = [greedy(smollm2, prompt, answers) for prompt in prompts]
    assert sum(a == b for a, b in zip(best, written, strict=True)) >= 5
    assert len({tuple(answer) for answer in written}) > 1


def greedy(loaded: Any, prompt: list[int], answers: Sequence[list[int]]) -> list[int]:
    """Return what ``generate`` writes if it may only go on as one of the answers does."""

    def allowed(_: int, ids: Any) -> list[int]:
        said = ids[len(prompt) :].tolist()
        return [answer[len(said)] for answer in answers if answer[: len(said)] == said and len(said) < len(answer)]

    ids = torch.tensor([prompt])
    found = loaded.model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=len(answers[0]), do_sample=False,
        prefix_allowed_tokens_fn=allowed,
    )  # fmt: skip
    written: list[int] = found[0, len(prompt) :].tolist()
    return written


def test_results_stand_in_the_order_of_the_prompts(llama: Any) -> None:
    """Reading the longest first, a few at once, does not show."""
    alone = [score(llama, [prompt], [ANSWERS], 1)[0].log_likelihoods for prompt in PROMPTS]
    assert not np.allclose(alone[0], alone[1])
    for size in (1, 2, BatchSize(3)):
        together = score(llama, PROMPTS, [ANSWERS] * len(PROMPTS), size)
        assert np.allclose([scored.log_likelihoods for scored in together], alone, atol=1e-3)


def test_each_prompt_may_have_candidates_of_its_own(llama: Any) -> None:
    """Unlike lists of answers are scored in one call; lengths count all tokens of an answer."""
    candidates = [ANSWERS, ANSWERS[:1], [[5], [6], [7, 8]], ANSWERS[1:3], []]
    found = score(llama, PROMPTS, candidates, 8)
    assert furthest(llama, PROMPTS[:4], candidates[:4], found[:4]) < 1e-3
    assert [scored.lengths.tolist() for scored in found] == [[4, 5, 7, 6], [4], [1, 1, 2], [5, 7], []]


def test_more_prompts_than_one_forward_holds_are_all_scored(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts are divided by their tokens, and by the logits they need; one that is larger still stands alone."""
    alone = [score(llama, [prompt], [ANSWERS], 1)[0].log_likelihoods for prompt in PROMPTS]
    for name, bound in (("CPU_TOKENS", 20), ("LOGIT_BYTES", 20 * 97 * 4)):
        with monkeypatch.context() as patch:
            patch.setattr(scoring, name, bound)
            found = score(llama, PROMPTS, [ANSWERS] * len(PROMPTS), 8)
        assert np.allclose([scored.log_likelihoods for scored in found], alone, atol=1e-3)


def test_a_batch_that_does_not_fit_is_halved(llama: Any) -> None:
    """When memory runs out with several prompts in one forward, they are read in smaller parts, to the same scores."""
    expected = score(llama, PROMPTS, [ANSWERS] * len(PROMPTS), 8)

    class Narrow(torch.nn.Module):  # the same model on a device with room for two prompts at once
        config, dtype, device = llama.model.config, llama.model.dtype, llama.device

        @functools.wraps(type(llama.model).forward)
        def forward(self, **given: Any) -> Any:
            kept = given["logits_to_keep"]
            if isinstance(kept, torch.Tensor) and len(kept) > 20:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return llama.model(**given)

    size = BatchSize(8)
    loaded = SimpleNamespace(**vars(llama) | {"model": Narrow()})
    found = score(loaded, PROMPTS, [ANSWERS] * len(PROMPTS), size)
    assert size.value == 2
    for scored, other in zip(found, expected, strict=True):
        assert np.allclose(scored.log_likelihoods, other.log_likelihoods, atol=1e-3)


def test_a_label_that_begins_another_is_told_apart_by_its_end(smollm2: Any) -> None:
    """1 and 10 differ in nothing but what follows the 1, so there the closing tokens count."""
    task = Task("stars", Rating(1, 10), {"en": "Stars"}, {"en": "How many of ten stars?"})
    answers = answers_of(smollm2, task)
    one, ten = answers[0], answers[9]
    prompt = prompts_of(smollm2, task, reviews()[:1], "en")[0]
    [scored] = score(smollm2, [prompt], [[one, ten]], 1)
    shares = probabilities(scored)
    exact = np.exp([plain(smollm2, prompt, one), plain(smollm2, prompt, ten)])
    assert shares == pytest.approx(exact / exact.sum(), rel=1e-3)
    assert one[: len(one) - 1] == ten[: len(one) - 1]


def test_a_candidate_may_be_the_beginning_of_another(llama: Any) -> None:
    """Answers that are whole tokens shorter are scored too, though no text that closes itself gives such ids."""
    candidates = [[[70, 71], [70, 71, 72], [70]]]
    found = score(llama, PROMPTS[:1], candidates, 1)
    assert furthest(llama, PROMPTS[:1], candidates, found) < 1e-3


def test_probabilities_are_of_the_labels_alone(llama: Any) -> None:
    """They sum to one, and neither what all answers begin with nor what all end with changes them."""
    prompt, labels = PROMPTS[0], [[80], [81, 82], [83, 84, 85]]
    bare = probabilities(score(llama, [[*prompt, 70, 71]], [labels], 1)[0])
    whole = [[70, 71, *label, 90, 91] for label in labels]
    [scored] = score(llama, [prompt], [whole], 1)
    assert probabilities(scored) == pytest.approx(bare, abs=1e-4)
    assert probabilities(scored).sum() == pytest.approx(1.0)
    tails = [plain(llama, prompt, answer) - plain(llama, prompt, answer[:-2]) for answer in whole]
    assert scored.tails == pytest.approx(tails, abs=1e-3)


def test_long_labels_are_as_likely_as_their_tokens_say() -> None:
    """A label of certain tokens gains nothing by having many of them, and impossible ones leave no NaN behind."""
    none = np.zeros(2)
    assert probabilities(Scored(np.log([0.6, 0.4]), np.array([2, 9]), none)) == pytest.approx([0.6, 0.4])
    assert probabilities(Scored(np.array([-2000.0, -1990.0]), np.array([2, 9]), none)) == pytest.approx(
        [0, 1], abs=1e-4
    )


def test_the_edges_of_a_list(llama: Any) -> None:
    """No prompts, no candidates, a single one: each has its defined answer."""
    assert score(llama, [], [], 4) == []
    [empty] = score(llama, PROMPTS[:1], [[]], 4)
    assert probabilities(empty).tolist() == []
    [single] = score(llama, PROMPTS[:1], [ANSWERS[:1]], 4)
    assert probabilities(single).tolist() == [1.0]


@pytest.mark.parametrize(
    ("prompt", "candidates", "said"),
    [
        ([], ANSWERS, "Prompt 1 has no tokens"),
        (HEAD, [[5], []], "Candidate 1 of prompt 1 has no tokens"),
        ([7] * 250, ANSWERS, "Prompt 1 and its longest answer have 257 tokens; the model reads 256"),
    ],
)
def test_what_cannot_be_scored_is_named(llama: Any, prompt: Any, candidates: Any, said: str) -> None:
    """The number of the prompt and what is wrong with it."""
    with pytest.raises(ValueError, match=said):
        score(llama, [HEAD, prompt], [ANSWERS, candidates], 4)


def test_a_shared_head_is_computed_once(llama: Any) -> None:
    """A later call reads only what is new: the tokens that pass through the model are counted."""
    read: list[int] = []
    count = llama.model.register_forward_pre_hook(
        lambda _, __, given: read.append(given["input_ids"].shape[1]), with_kwargs=True
    )
    try:
        score(llama, PROMPTS[:1], [ANSWERS], 4)  # the trial is over
        cache = PrefixCache()
        read.clear()
        score(llama, [[*HEAD, 61], [*HEAD, 62, 63]], [ANSWERS] * 2, 4, cache)
        assert read == [len(HEAD), 1 + 2 + 2 * INNER]
        read.clear()
        score(llama, [[*HEAD, 62]], [ANSWERS], 4, cache)
        assert read == [1 + INNER]
    finally:
        count.remove()


def test_single_prompts_share_their_head_too(llama: Any) -> None:
    """Records that come one by one, as a page asks for them, find the head that the first one left."""
    cache = PrefixCache()
    for prompt in PROMPTS:
        [found] = score(llama, [prompt], [ANSWERS], 4, cache)
        assert furthest(llama, [prompt], [ANSWERS], [found]) < 1e-3
    assert len(cache) == 1


def prefix(ids: Sequence[int]) -> Prefix:
    """Return a prefix of 16 bytes a token, whose keys are its ids."""
    keys = torch.tensor(ids, dtype=torch.float32).reshape(1, 1, -1, 1).repeat(1, 1, 1, 2)
    return Prefix(tuple(ids), ((keys, keys),))


def test_the_longest_known_head_is_found(llama: Any) -> None:
    """Token ids are the key: a prefix is cut where another prompt leaves it, and what shares nothing finds nothing."""
    cache = PrefixCache()
    cache.add(llama.model, prefix([1, 2, 3, 4]))
    cache.add(llama.model, prefix([1, 2, 7, 8, 9]))
    found = cache.longest(llama.model, [1, 2, 7, 8, 5])
    assert found.ids == (1, 2, 7, 8)
    assert found.layers[0][0][0, 0, :, 0].tolist() == [1, 2, 7, 8]
    assert len(cache.longest(llama.model, [2, 2])) == 0


def test_kept_prefixes_are_bounded(llama: Any) -> None:
    """By number and by bytes; the one used last stays, one that is continued goes, a huge one is not kept."""
    cache = PrefixCache(entries=2, max_bytes=16 * 10)
    cache.add(llama.model, prefix([1, 2]))
    cache.add(llama.model, prefix([3, 4]))
    cache.longest(llama.model, [1, 2])
    cache.add(llama.model, prefix([5, 6]))
    assert (len(cache), len(cache.longest(llama.model, [1, 2])), len(cache.longest(llama.model, [3, 4]))) == (2, 2, 0)
    cache.add(llama.model, prefix([1, 2, 3, 4]))
    assert (len(cache), cache.size) == (2, 16 * 6)
    cache.add(llama.model, prefix(range(10, 19)))
    assert (len(cache), cache.size) == (1, 16 * 9)
    cache.add(llama.model, prefix(range(20, 31)))
    assert (len(cache), cache.size) == (1, 16 * 9)


def test_another_model_finds_nothing(llama: Any) -> None:
    """Keys and values belong to the weights that made them."""
    cache = PrefixCache()
    cache.add(llama.model, prefix([1, 2]))
    assert len(cache.longest(small("llama").model, [1, 2])) == 0
    assert len(cache) == 0


def test_common_length_is_that_of_all_sequences() -> None:
    """However many there are, and whichever is the shortest."""
    assert common_length([[1, 2, 3], [1, 2, 4, 5], [1, 2]]) == 2
    assert common_length([[1, 2, 3], [2], [1, 2, 3]]) == 0
    assert (common_length([[1, 2]]), common_length([])) == (2, 0)
