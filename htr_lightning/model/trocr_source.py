"""Load pretrained TrOCR models from a folder written by `transformers` or a repository on huggingface.co."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from htr_lightning.errors import InputError, first_line
from htr_lightning.net.pretrained import DECODER, ENCODER, transformers

TIMEOUT = 10  # seconds; kept short for machines without network access
SMALL_FILES = ("*.json", "*.txt", "*.model")
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # in order of preference


class Source(NamedTuple):
    """The settings and weights of a pretrained model."""

    architecture: dict[str, Any]  # settings of the encoder and the decoder, and the token ids "start", "end" and "pad"
    tokenizer: str  # in JSON
    weights: dict[str, Tensor]  # state dict for `PretrainedTrOCR`


def open_source(source: str) -> Source:
    """Load a pretrained TrOCR model.

    Args:
        source: folder, or a repository such as microsoft/trocr-base-handwritten, which is downloaded once.

    Raises:
        InputError: if the source does not exist and cannot be downloaded, or is not a TrOCR model.
    """
    package = transformers()
    folder = Path(source) if Path(source).is_dir() else _fetch(source)
    _check_kind(folder, source)
    if not list(folder.glob("tokenizer.json")) and list(folder.glob("*.model")) and not find_spec("sentencepiece"):
        raise InputError(
            f"model.source={source}: its tokenizer is a SentencePiece model; run pip install sentencepiece protobuf "
            "(not needed to load checkpoints, which contain the tokenizer)"
        )
    package.logging.set_verbosity_error()  # missing weights are reported below
    package.logging.disable_progress_bar()
    try:
        model, loading = package.VisionEncoderDecoderModel.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, dtype=torch.float32, output_loading_info=True
        )
        tokenizer = package.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        text = tokenizer.backend_tokenizer.to_str()
    except Exception as error:  # corrupted files can raise anything
        raise InputError(
            f"model.source={source}: cannot load the model ({first_line(error)}); download it again"
        ) from None
    lost = sorted(name for name in loading["missing_keys"] if ".pooler." not in name)
    weights = {name: weight for name, weight in model.state_dict().items() if not name.startswith("encoder.pooler.")}
    foreign = sorted(name for name in weights if not name.startswith(("encoder.", "decoder.")))
    if lost or foreign:
        what = f"no weights for {lost[0]}" if lost else f"unknown layer {foreign[0]}"
        raise InputError(f"model.source={source}: {what}; use a TrOCR model such as microsoft/trocr-small-handwritten")
    return Source(_architecture(model), text, weights)


def _architecture(model: Any) -> dict[str, Any]:
    """Return the settings of a network and its special tokens, as plain data."""
    encoder, decoder = model.config.encoder, model.config.decoder
    words, head = model.decoder.get_input_embeddings(), model.decoder.get_output_embeddings()
    settings = {key: getattr(decoder, key) for key in DECODER}
    settings["tie_word_embeddings"] = torch.equal(words.weight, head.weight)  # regardless of the config
    eos = model.generation_config.eos_token_id or decoder.eos_token_id
    eos = eos[0] if isinstance(eos, list) else eos
    start = model.generation_config.decoder_start_token_id
    return {
        "encoder": {"model_type": encoder.model_type} | {key: getattr(encoder, key) for key in ENCODER},
        "decoder": settings,
        "start": decoder.decoder_start_token_id if start is None else start,
        "end": eos,
        "pad": decoder.pad_token_id,
    }


def _check_kind(folder: Path, source: str) -> None:
    """Raise InputError if a folder does not contain a TrOCR model."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"model.source={source}: no config.json in this folder; use a folder written by `save_pretrained` "
            "in transformers, or a repository such as microsoft/trocr-small-handwritten"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not JSON"
        raise InputError(
            f"model.source={source}: cannot read config.json ({reason}); download the model again"
        ) from None
    config = config if isinstance(config, dict) else {}
    sides = [side.get("model_type") if isinstance(side := config.get(key), dict) else None
             for key in ("encoder", "decoder")]  # fmt: skip
    if sides[0] not in ("vit", "deit") or sides[1] != "trocr":
        what = " + ".join(map(str, sides)) if any(sides) else config.get("model_type")
        raise InputError(
            f"model.source={source}: expected a vit or deit encoder with a trocr decoder, got {what}; use a TrOCR "
            "model such as microsoft/trocr-small-handwritten"
        )
    if not any((folder / name).is_file() for name in WEIGHTS):
        raise InputError(f"model.source={source}: no weights ({' or '.join(WEIGHTS)}); download the model again")


def _fetch(source: str) -> Path:
    """Return the cached folder of a repository; download it if it is missing or incomplete."""
    import huggingface_hub as hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    missing = f"model.source={source}: no such folder"
    if source.count("/") != 1 or source.startswith((".", "/", "~")):
        raise InputError(f"{missing}; check the path, or use a repository such as microsoft/trocr-small-handwritten")
    try:
        folder = Path(hub.snapshot_download(source, local_files_only=True))
        if (folder / "config.json").is_file() and any((folder / name).is_file() for name in WEIGHTS):
            return folder
    except LocalEntryNotFoundError:
        pass
    except HFValidationError:
        raise InputError(f"{missing}, and not a valid repository name; check the path") from None
    try:
        files = {file.rfilename for file in hub.HfApi().model_info(source, timeout=TIMEOUT).siblings or []}
        weights = next((name for name in WEIGHTS if name in files), None)
        patterns = [*SMALL_FILES, *([weights] if weights else [])]
        return Path(hub.snapshot_download(source, allow_patterns=patterns, etag_timeout=TIMEOUT))
    except HfHubHTTPError as error:
        status = "no response" if error.response is None else f"HTTP {error.response.status_code}"
        raise InputError(
            f"{missing}, and https://huggingface.co/{source} returned {status}; check the name, or log in with "
            "`hf auth login` if the repository is private"
        ) from None
    except Exception as error:  # OSError, or an error from the HTTP library, which varies by version
        if not isinstance(error, OSError) and not type(error).__module__.startswith("http"):
            raise
        raise InputError(
            f"{missing}, and https://huggingface.co/{source} cannot be downloaded ({first_line(error)}); run "
            f"`hf download {source}` on a machine with network access, copy the folder here, and use its path"
        ) from None
