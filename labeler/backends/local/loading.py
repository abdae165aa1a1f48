"""Local weights: from a folder, a GGUF file or the hub's cache, onto a GPU or the CPU, in 4 or 8 bits or whole.

Code that comes with a model is never run, and weights are read from safetensors or GGUF only: a pickle can run
anything. What can go wrong is said in one sentence with its remedy.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from labeler.backends.local.chat import Chat
from labeler.backends.local.memory import free_memory, is_out_of_memory
from labeler.errors import BackendError, LabelerError, MissingExtra, SettingError
from labeler.sentence import N_, Sentence

if TYPE_CHECKING:
    import torch

AUTO, NF4, INT8, WHOLE = "auto", "nf4", "int8", "none"
CUDA, MPS, CPU = "cuda", "mps", "cpu"
PEFT_KINDS = ("LORA", "IA3", "PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING", "ADAPTION_PROMPT")
_SHORTEST_CONTEXT = 2048
_POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len")
# Tokens that no text is made of, best first; the end of a turn is never among them.
_PADS = ("<|finetune_right_pad_id|>", "<|pad|>", "<pad>", "[PAD]", "<|reserved_special_token_0|>", "<|endoftext|>")
_OFFLINE = {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectionError", "ConnectError", "ConnectTimeout"}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadOptions:
    """Which weights, and how. ``model_id`` is a hub id, a folder or a GGUF file; ``adapter`` the folder of what
    peft trained for these weights.

    ``quantization``: "nf4" (4 bits), "int8", "none", or "auto": nf4 on a CUDA card, none elsewhere. ``device``:
    "cuda", "mps", "cpu", or "auto": the best there is. ``gguf_file`` names a file in the folder or repository.
    """

    model_id: str
    quantization: str = AUTO
    device: str = AUTO
    gguf_file: str = ""
    adapter: str = ""


@dataclass
class LoadedModel:
    """Weights ready to answer. ``context`` is how many tokens a prompt and its answer have together at most.

    ``eos_ids`` end an answer; ``pad_id`` is never one of them. ``cache`` keeps what is derived from the tokenizer.
    """

    model: Any
    tokenizer: Any
    device: torch.device
    dtype: torch.dtype
    context: int
    description: str
    eos_ids: tuple[int, ...]
    pad_id: int
    cache: dict[str, Any] = field(default_factory=dict, repr=False)


def load(options: LoadOptions) -> LoadedModel:
    """Load model and tokenizer. Raises :class:`SettingError`, :class:`MissingExtra` or :class:`BackendError`."""
    for package in ("torch", "transformers", "accelerate"):
        _need(package)
    options = located(options)
    device = choose_device(options.device)
    quantization = choose_quantization(options, device.type)
    if options.adapter:
        _check_adapter(options.adapter)
    log.info("Loading %s on %s (%s)", options.model_id, device, quantization)
    try:
        loaded = _load(options, device, quantization)
    except LabelerError:
        raise
    except Exception as error:  # hub, disk, tokenizer, torch and bitsandbytes each raise their own
        explain(error, options, device.type)
    log.info("Loaded %s; it reads %d tokens", loaded.description, loaded.context)
    return loaded


def _load(options: LoadOptions, device: torch.device, quantization: str) -> LoadedModel:
    transformers: Any = importlib.import_module("transformers")
    dtype = dtype_on(device)
    # The token comes from the environment alone; False keeps transformers from one that somebody left on this disk.
    source: dict[str, Any] = {"trust_remote_code": False, "token": os.environ.get("HF_TOKEN") or False}
    if options.gguf_file:
        source["gguf_file"] = options.gguf_file
    else:
        source["use_safetensors"] = True
    transformers.utils.logging.disable_progress_bar()
    how: dict[str, Any] = {"dtype": dtype, "device_map": {"": str(device)}}
    if quantization != WHOLE:
        how["quantization_config"] = bits(quantization, device)
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.model_id, **source)
    model = transformers.AutoModelForCausalLM.from_pretrained(options.model_id, **source, **how)
    if options.adapter:
        model = _with_adapter(model, options.adapter)
    model.eval().requires_grad_(False)
    eos_ids = _end_ids(model, tokenizer)
    pad_id = _pad_id(tokenizer, eos_ids)
    # Answers are decided by our settings alone, not by a sampling that the makers of the weights like.
    model.generation_config = transformers.GenerationConfig(eos_token_id=list(eos_ids), pad_token_id=pad_id)
    described = f"{_name(options)} on {device.type}, {_bits_name(quantization)}{str(dtype).removeprefix('torch.')}"
    return LoadedModel(model, tokenizer, device, dtype, context_of(model, tokenizer), described, eos_ids, pad_id)


def _with_adapter(model: Any, adapter: str) -> Any:
    peft: Any = importlib.import_module("peft")
    whole = peft.PeftModel.from_pretrained(model, adapter)
    if not whole.active_peft_config.is_prompt_learning:
        # What peft put into the layers is in them now.
        return whole.get_base_model()
    # Virtual tokens need what stands around the model. It counts positions itself, and says so at every token.
    warnings.filterwarnings("ignore", "Position ids are not supported")
    return whole


def load_encoder(model_id: str, device: str = AUTO, **how: Any) -> tuple[Any, Any]:
    """Load an encoder that classifies, and its tokenizer, by hub id or folder; ``how`` goes into its configuration.

    What is laid on the encoder may be new, the encoder itself may not. Raises :class:`SettingError`,
    :class:`MissingExtra` or :class:`BackendError`.
    """
    for package in ("torch", "transformers"):
        _need(package)
    options = located(LoadOptions(model_id, WHOLE, device))
    place = choose_device(device)
    try:
        model, tokenizer, missing = _load_encoder(options, how)
    except Exception as error:  # as in load
        explain(error, options, place.type)
    inside = [name for name in missing if name.startswith(f"{model.base_model_prefix}.") and ".pooler." not in name]
    if inside:
        raise SettingError(
            "The model %(model)s has no weights for %(n)s parts of its encoder, such as %(name)s; take another model",
            model=model_id,
            n=len(inside),
            name=inside[0],
        )
    return model.to(place), tokenizer


def _load_encoder(options: LoadOptions, how: Mapping[str, Any]) -> tuple[Any, Any, list[str]]:
    transformers: Any = importlib.import_module("transformers")
    transformers.utils.logging.disable_progress_bar()
    said = logging.getLogger("transformers")
    source: dict[str, Any] = {"trust_remote_code": False, "token": os.environ.get("HF_TOKEN") or False}
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.model_id, **source)
    load = transformers.AutoModelForSequenceClassification.from_pretrained
    before = said.level
    try:
        # It reports that what is laid on the encoder is new.
        said.setLevel(logging.ERROR)
        model, report = load(options.model_id, use_safetensors=True, output_loading_info=True, **source, **how)
    finally:
        said.setLevel(before)
    return model, tokenizer, sorted(report["missing_keys"])


def choose_device(wanted: str) -> torch.device:
    """Return the device. Raises :class:`SettingError` if there is none of the kind that is wanted."""
    import torch

    there = {CUDA: torch.cuda.is_available(), MPS: torch.backends.mps.is_available(), CPU: True}
    if wanted == AUTO:
        wanted = next(kind for kind, found in there.items() if found)
    if wanted not in there:
        raise SettingError(
            "%(setting)s is %(value)r; allowed are: %(names)s",
            setting="device",
            value=wanted,
            names=", ".join([AUTO, *there]),
        )
    if not there[wanted]:
        raise SettingError(
            N_("device is %(device)s, but torch finds no NVIDIA or AMD GPU on this machine; set device to auto or cpu")
            if wanted == CUDA
            else N_("device is %(device)s, but torch finds no Apple GPU on this machine; set device to auto or cpu"),
            device=wanted,
        )
    return torch.device(wanted)


def choose_quantization(options: LoadOptions, device: str) -> str:
    """Return "nf4", "int8" or "none". Raises if bitsandbytes is needed and missing, or the file has its own bits.

    Raises :class:`SettingError` for a name that is none.
    """
    wanted = options.quantization
    if wanted not in (AUTO, NF4, INT8, WHOLE):
        raise SettingError(
            "%(setting)s is %(value)r; allowed are: %(names)s",
            setting="quantization",
            value=wanted,
            names=", ".join([AUTO, NF4, INT8, WHOLE]),
        )
    if options.gguf_file:
        if wanted in (NF4, INT8):
            raise SettingError(
                "quantization is %(name)s, but %(file)s is a GGUF file, which brings its own; set quantization to "
                "auto, or load the model from its safetensors",
                name=wanted,
                file=options.gguf_file,
            )
        return WHOLE
    if wanted == AUTO:
        wanted = NF4 if device == CUDA else WHOLE
    if wanted != WHOLE:
        _need("bitsandbytes")
    return wanted


def located(options: LoadOptions) -> LoadOptions:
    """Check what lies on this disk, and part a path of a GGUF file into folder and file.

    Raises :class:`SettingError` for what cannot be loaded.
    """
    model_id, gguf_file = options.model_id.strip(), options.gguf_file.strip()
    if not model_id:
        raise SettingError("The transformers backend needs a model id: a hub id or a folder; set it for the task")
    path = Path(model_id).expanduser()
    if path.is_file() and path.suffix == ".gguf" and not gguf_file:
        path, gguf_file = path.parent, path.name
    if gguf_file:
        if Path(gguf_file).is_absolute() or ".." in Path(gguf_file).parts:
            raise SettingError(
                "gguf_file is %(file)r; give the name of a file inside the model's folder", file=gguf_file
            )
        _need("gguf")
    if path.is_dir():
        _check_folder(path, gguf_file)
        model_id = str(path)
    elif re.match(r"[/~.]|[A-Za-z]:\\", model_id) or model_id.count("/") > 1 or path.exists():
        raise SettingError(
            "There is no model folder %(folder)s; give a folder with config.json, or a hub id", folder=model_id
        )
    return LoadOptions(model_id, options.quantization, options.device, gguf_file, options.adapter.strip())


def weights_on_disk(options: LoadOptions) -> str:
    """Return a digest of what lies in the folders of a model and its adapter: names, sizes and times of their files.

    Empty for a model of the hub, whose files are named by what is in them. Files are not read: they have gigabytes.
    """
    roots = [Path(name.strip()).expanduser() for name in (options.model_id, options.adapter) if name.strip()]
    files = [file for root in roots for file in (sorted(root.rglob("*")) if root.is_dir() else [root])]
    stats = [(file.name, file.stat()) for file in files if file.is_file()]
    if not stats:
        return ""
    said = json.dumps([[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats])
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def _check_folder(folder: Path, gguf_file: str) -> None:
    if gguf_file:
        if not (folder / gguf_file).is_file():
            there = ", ".join(sorted(path.name for path in folder.glob("*.gguf"))[:5]) or "none"
            raise SettingError(
                "There is no file %(file)s in %(folder)s; GGUF files there: %(names)s",
                file=gguf_file,
                folder=folder,
                names=there,
            )
    elif not (folder / "config.json").is_file():
        files = sorted(path.name for path in folder.glob("*.gguf"))
        raise SettingError(
            N_("The folder %(folder)s has no config.json, so it holds no model; set gguf_file to %(file)s")
            if files
            else N_(
                "The folder %(folder)s has no config.json, so it holds no model; give the folder that holds "
                "config.json and the weights"
            ),
            folder=folder,
            file="".join(files[:1]),
        )
    elif not any(folder.glob("*.safetensors")):
        raise SettingError(
            "The folder %(folder)s holds no safetensors, and other weights are not read, because a "
            "pickle can run any code; save the model with safetensors",
            folder=folder,
        )


def _check_adapter(adapter: str) -> None:
    folder = Path(adapter).expanduser()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (folder / name).is_file():
            raise SettingError(
                "The adapter %(folder)s has no %(file)s; give the folder of an adapter that peft has saved",
                folder=adapter,
                file=name,
            )
    try:
        kind = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["peft_type"]
    except (ValueError, KeyError, TypeError, UnicodeDecodeError):
        raise SettingError(
            "adapter_config.json in %(folder)s has no peft_type; save the adapter again", folder=adapter
        ) from None
    if kind not in PEFT_KINDS:
        raise SettingError(
            "The adapter %(folder)s is of the kind %(kind)s; those that are read: %(names)s",
            folder=adapter,
            kind=kind,
            names=", ".join(PEFT_KINDS),
        )
    try:
        importlib.import_module("peft")
    except ImportError as error:
        raise SettingError("An adapter needs the package peft; install it with: pip install peft") from error


def _need(package: str) -> None:
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise MissingExtra(package, "local") from error


def dtype_on(device: torch.device) -> torch.dtype:
    import torch

    if device.type == CUDA:
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.float16 if device.type == MPS else torch.float32


def bits(quantization: str, device: torch.device) -> Any:
    """NF4 with double quantisation as in QLoRA (Dettmers et al. 2023), or LLM.int8() (Dettmers et al. 2022)."""
    BitsAndBytesConfig: Any = importlib.import_module("transformers").BitsAndBytesConfig
    if quantization == INT8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype_on(device),
    )


def _end_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    named = model.generation_config.eos_token_id
    ids = [*(named if isinstance(named, list) else [named]), tokenizer.eos_token_id, *Chat(tokenizer).end_ids]
    return tuple(dict.fromkeys(int(id_) for id_ in ids if id_ is not None))


def _pad_id(tokenizer: Any, eos_ids: tuple[int, ...]) -> int:
    """Return an id for padding. Attention never sees it, so any will do that does not end an answer."""
    vocabulary = tokenizer.get_vocab()
    named = [tokenizer.pad_token_id, *(vocabulary.get(name) for name in _PADS)]
    rest = [tokenizer.unk_token_id, tokenizer.bos_token_id, *range(len(eos_ids) + 1)]
    return next(int(id_) for id_ in (*named, *rest) if id_ is not None and id_ not in eos_ids)


def context_of(model: Any, tokenizer: Any) -> int:
    """Return how many tokens the model reads, behind those that an adapter puts before every prompt."""
    return (read_by(model.config, tokenizer) or _SHORTEST_CONTEXT) - virtual_tokens(model)


def read_by(config: Any, tokenizer: Any) -> int | None:
    """Return how many tokens a model with this config (None: unknown) and tokenizer reads; None if neither says it."""
    known = [None if config is None else _positions(config.get_text_config()), tokenizer.model_max_length]
    # Tokenizers that do not know say 10^30.
    return min((int(n) for n in known if n and 0 < n < 10**8), default=None)


def encoder_reads(model: Any, tokenizer: Any) -> int | None:
    """Return how many tokens a loaded encoder reads; None if nothing says it.

    RoBERTa and its like count positions from behind that of padding: those before it are never used.
    """
    places = [one for name, one in model.named_modules() if name.rsplit(".", 1)[-1] == "position_embeddings"]
    pads = [(one.num_embeddings, one.padding_idx) for one in places if getattr(one, "padding_idx", None) is not None]
    known = [read_by(model.config, tokenizer), *(n - padding - 1 for n, padding in pads)]
    return min((n for n in known if n is not None), default=None)


def _positions(config: Any) -> float | None:
    """Return how many positions a config has, stretched as it scales them.

    YaRN says what it stretches; some configs name the product as their positions, and some do not. Where positions
    are scaled for each kind of layer, or by another method, the config names the product.
    """
    positions: float | None = next((n for name in _POSITIONS if (n := getattr(config, name, None))), None)
    scaling = getattr(config, "rope_parameters", None) or {}
    kind, factor = scaling.get("rope_type"), scaling.get("factor") or 1.0
    if positions is None or kind not in ("linear", "dynamic", "yarn"):
        return positions
    if kind == "yarn":
        return max(positions, (scaling.get("original_max_position_embeddings") or 0) * factor)
    return float(positions * factor)


def virtual_tokens(model: Any) -> int:
    """Return how many tokens an adapter puts before every prompt."""
    adapter = getattr(model, "active_peft_config", None)
    return int(getattr(adapter, "num_virtual_tokens", None) or 0)


def _name(options: LoadOptions) -> str:
    name = Path(options.model_id).name if Path(options.model_id).is_dir() else options.model_id
    parts = [name, options.gguf_file, f"with {Path(options.adapter).name}" if options.adapter else ""]
    return " ".join(part for part in parts if part)


def _bits_name(quantization: str) -> str:
    return "" if quantization == WHOLE else f"{quantization.upper()}, "


def explain(error: Exception, options: LoadOptions, device: str) -> NoReturn:
    """Raise what ``error`` means to the person who chose the model: :class:`SettingError`, or :class:`BackendError`."""
    model_id = options.model_id
    names = {type(cause).__name__ for cause in _causes(error)}
    said = " ".join(str(cause) for cause in _causes(error))
    if any(is_out_of_memory(cause) for cause in _causes(error)):
        free_memory()
        raise BackendError(
            "The model %(model)s does not fit into the memory of %(device)s; set quantization to nf4, "
            "take a smaller model, or set device to cpu",
            model=model_id,
            device=device,
        ) from error
    if "GatedRepoError" in names or "gated repo" in said:
        message = Sentence(
            "The model %(model)s is gated; accept its licence on the hub, and set HF_TOKEN to your token",
            model=model_id,
        )
    elif "RepositoryNotFoundError" in names or "not a valid model identifier" in said:
        message = Sentence(
            "The hub has no model %(model)s, or it is private; check the model id, or set HF_TOKEN", model=model_id
        )
    elif names & _OFFLINE or "couldn't connect" in said or "offline mode" in said.lower():
        message = Sentence(
            "The model %(model)s is not in the local cache and the hub cannot be reached; connect once,"
            " or give a folder with the weights",
            model=model_id,
        )
    elif "model.safetensors" in said or "use_safetensors" in said:
        message = Sentence(
            "The model %(model)s has no weights in safetensors, and a pickle is not read; take another model",
            model=model_id,
        )
    elif "trust_remote_code" in said:
        message = Sentence(
            "The model %(model)s comes with its own code, which is never run; use a model that transformers supports",
            model=model_id,
        )
    elif isinstance(error, ImportError):
        message = Sentence(
            "The model %(model)s needs a package that is not installed: %(reason)s",
            model=model_id,
            reason=_first_line(error),
        )
    else:
        message = Sentence(
            "The model %(model)s could not be loaded: %(reason)s; check its folder or choose another",
            model=model_id,
            reason=_first_line(error),
        )
    raise SettingError(message) from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _first_line(error: Exception) -> str:
    line = next((line.strip() for line in str(error).split("\n") if line.strip()), "")
    return line.rstrip(".")[:300] or type(error).__name__
