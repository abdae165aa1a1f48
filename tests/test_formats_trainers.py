"""Training sets are taken by TRL's SFTTrainer as they stand: no row is dropped, and the answer is what is learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_export import ALL_TRAIN, NASTY, World, world  # noqa: F401
from tiny_models import byte_tokenizer, one_thread, small  # noqa: F401

from labeler.export import Options

pytestmark = pytest.mark.slow
datasets = pytest.importorskip("datasets")
trl = pytest.importorskip("trl")


def trainer(folder: Path) -> Any:
    """Return TRL's trainer for a folder, a tiny model, and two steps; ``max_length`` is None: TRL's own drops rows."""
    datasets.disable_progress_bars()
    rows = datasets.load_dataset(str(folder), cache_dir=str(folder.parent / "cache"))
    tokenizer = byte_tokenizer()
    model = small("llama", vocab_size=len(tokenizer), max_position_embeddings=8192, num_hidden_layers=1).model.train()
    how = trl.SFTConfig(
        str(folder.parent / "out"), max_length=None, max_steps=2, per_device_train_batch_size=1, use_cpu=True,
        report_to=[], save_strategy="no", disable_tqdm=True, logging_strategy="no", bf16=False,
        gradient_checkpointing=False,
    )  # fmt: skip
    return trl.SFTTrainer(model, how, train_dataset=rows["train"], processing_class=tokenizer)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", ["openai", "messages", "trl", "text", "dataset"])
def test_trl_trains_from_a_folder(world: World, name: str) -> None:  # noqa: F811
    """Two steps run on every row of the file, and what is learned ends with the answer."""
    for n, text in enumerate(NASTY[:6]):
        world.approve(f"r{n}", f"{text} {n}", "negative")
    result = world.export(name, shares=ALL_TRAIN, options=Options(language="en", template="chatml"))
    made = trainer(result.folder)
    assert len(made.train_dataset) == result.manifest["counts"]["train"] == 6
    batch = made.data_collator([made.train_dataset[0]])
    kept = batch["labels"][0]
    learned = made.processing_class.decode(kept[kept != -100])
    assert learned.rstrip("\n").endswith('{"sentiment": "negative"}<|im_end|>'), "answer, and one end of it"
    # Of the others TRL trains every token, unless it is told otherwise.
    assert learned.startswith("{") == (name == "trl")
    assert made.train().global_step == 2
