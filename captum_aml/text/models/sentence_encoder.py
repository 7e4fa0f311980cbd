"""Models of sentence-transformers, as objects and folders, read without that package.

A model is modules one after the other: a model of transformers, a pooling of its hidden states, and
perhaps dense layers and a normalization of what is pooled. A folder names them in ``modules.json``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase
from transformers.utils.hub import cached_file

from captum_aml.exceptions import InvalidInputError
from captum_aml.text.models.loading import ModelDescription

_MODULES = "modules.json"

#: In older versions there is a flag for each way to pool.
_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


def is_a(model: object, name: str) -> bool:
    """Whether an object is of a class of that name, or of one derived from it."""
    return any(kind.__name__ == name for kind in type(model).__mro__)


# The object's class is not imported.
def transformer_of(
    model: Any, tokenizer: PreTrainedTokenizerBase | None = None
) -> tuple[nn.Module, PreTrainedTokenizerBase]:
    """The model of transformers in an object of sentence-transformers, and its tokenizer.

    Args:
        model: A ``SentenceTransformer`` or a ``CrossEncoder``.
        tokenizer (optional): Another one. Default: None, the object's.

    Raises:
        InvalidInputError: It has no such model.
    """
    inner = model.model if is_a(model, "CrossEncoder") else getattr(model[0], "auto_model", None)
    if not isinstance(inner, nn.Module):
        raise InvalidInputError(
            f"model: expected a {type(model).__name__} that begins with a model of transformers, "
            f"got {type(inner).__name__}"
        )
    return inner, model.tokenizer if tokenizer is None else tokenizer


# Options are the arguments of a class, of several types, and the object's class is not imported.
def options_of_object(model: Any) -> dict[str, Any]:
    """The options of a similarity model that a ``SentenceTransformer`` holds.

    Raises:
        InvalidInputError: It has modules that are not known here.
    """
    first, *rest = list(model)
    if not rest or not is_a(rest[0], "Pooling"):
        raise _unknown([type(module).__name__ for module in rest])
    pooling = {name: getattr(rest[0], name, None) for name in ("pooling_mode", *_FLAGS)}
    prompts, chosen = getattr(model, "prompts", {}), getattr(model, "default_prompt_name", None)
    return _options(
        pooling={**pooling, "include_prompt": getattr(rest[0], "include_prompt", True)},
        prompt=prompts.get(chosen, "") if chosen else "",
        similarity=getattr(model, "similarity_fn_name", None),
        max_length=model.max_seq_length,
        lower_case=bool(getattr(first, "do_lower_case", False)),
        layers=[_Layer(module) for module in rest[1:] if not is_a(module, "Normalize")],
        normalizes=any(is_a(module, "Normalize") for module in rest),
    )


def options_of_folder(source: str) -> dict[str, Any]:
    """The options of a similarity model that a folder or hub id names; {} without ``modules.json``.

    Raises:
        InvalidInputError: It has modules that are not known here.
    """
    modules = _json(source, _MODULES)
    if modules is None:
        return {}
    kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
    paths = [str(module["path"]) for module in modules]
    known = ("Dense", "Normalize")
    if kinds[:2] != ["Transformer", "Pooling"] or any(kind not in known for kind in kinds[2:]):
        raise _unknown(kinds[1:])
    settings = _json(source, "config_sentence_transformers.json") or {}
    own = _json(source, os.path.join(paths[0], "sentence_bert_config.json")) or {}
    chosen = settings.get("default_prompt_name")
    return _options(
        pooling=_json(source, os.path.join(paths[1], "config.json")) or {},
        prompt=settings.get("prompts", {}).get(chosen, "") if chosen else "",
        similarity=settings.get("similarity_fn_name"),
        max_length=own.get("max_seq_length"),
        lower_case=bool(own.get("do_lower_case", False)),
        layers=[
            _dense(source, path) for kind, path in zip(kinds, paths, strict=True) if kind == "Dense"
        ],
        normalizes="Normalize" in kinds,
    )


def is_sentence_encoder(source: str, description: ModelDescription) -> bool:
    """Whether a folder or hub id, of which this is known, has modules with a pooling."""
    if not all(name.endswith("Model") for name in description.architectures):
        return False  # a repository on the hub is not asked for more than it takes
    return any(str(m["type"]).endswith("Pooling") for m in _json(source, _MODULES) or ())


def encoder_of(source: str) -> str:
    """The folder of the model of transformers: in older versions one inside of the folder."""
    modules = _json(source, _MODULES) or [{"path": ""}]
    inside = os.path.join(source, str(modules[0]["path"]))
    return inside if modules[0]["path"] and os.path.isdir(inside) else source


def _options(
    *,
    pooling: Mapping[str, Any],
    prompt: str,
    similarity: str | None,
    max_length: int | None,
    lower_case: bool,
    layers: Sequence[nn.Module],
    normalizes: bool,
) -> dict[str, Any]:
    if prompt and not pooling.get("include_prompt", True):
        raise InvalidInputError(
            "model: expected a pooling of all tokens, got one that leaves out those of the prompt "
            f"{prompt!r}"
        )
    modes = pooling.get("pooling_mode") or [m for flag, m in _FLAGS.items() if pooling.get(flag)]
    # Of vectors of length 1 both are the same.
    measure = "cosine" if similarity is None or (similarity == "dot" and normalizes) else similarity
    return {
        "pooling": modes or "mean",
        "prompts": (prompt, prompt),
        "similarity": measure,
        "layers": tuple(layers),
        "lower_case": lower_case,
        "max_length": max_length,
    }


def _unknown(kinds: Sequence[str]) -> InvalidInputError:
    return InvalidInputError(
        "model: expected a pooling after the model of transformers, then dense layers or a "
        f"normalization if anything, got {', '.join(kinds) or 'nothing'}"
    )


class _Layer(nn.Module):
    """A module of sentence-transformers as a layer of embeddings."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, embeddings: Tensor) -> Tensor:
        found: Tensor = self.module({"sentence_embedding": embeddings})["sentence_embedding"]
        return found


def _dense(source: str, path: str) -> nn.Module:
    config = _json(source, os.path.join(path, "config.json")) or {}
    weights = _file(source, os.path.join(path, "model.safetensors"))
    name = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    activation = getattr(nn, name.rpartition(".")[2], None) if name.startswith("torch.nn") else None
    if weights is None or activation is None or config.get("use_residual"):
        raise InvalidInputError(
            f"model: expected the dense layer {path!r} with weights in model.safetensors, an "
            f"activation of torch.nn and no residual, got {config}; load the model with "
            "sentence-transformers and give the object"
        )
    layer = nn.Linear(config["in_features"], config["out_features"], bias=config.get("bias", True))
    tensors = load_file(weights)
    layer.load_state_dict({key.removeprefix("linear."): value for key, value in tensors.items()})
    return nn.Sequential(layer, activation()).requires_grad_(False).eval()


def _json(source: str, name: str) -> Any:  # what the file holds
    file = _file(source, name)
    return None if file is None else json.loads(file.read_text(encoding="utf-8"))


def _file(source: str, name: str) -> Path | None:
    """A file of a folder or hub id; None where there is none."""
    if os.path.isdir(source):
        inside = Path(source, name)
        return inside if inside.is_file() else None
    try:
        found = cached_file(
            source,
            name.replace(os.sep, "/"),
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
            _raise_exceptions_for_gated_repo=False,
        )
    except OSError:  # there is no such repository, which loading the model says
        return None
    return None if found is None else Path(found)
