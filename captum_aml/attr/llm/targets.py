"""Token ids of what is explained: given by the caller, or written by the model."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from captum_aml._captum import DEFAULT_GEN_ARGS
from captum_aml._utils.checks import is_integral
from captum_aml.exceptions import InvalidInputError


def given_ids(tokenizer: Any, target: str | Tensor, gen_args: Mapping[str, Any] | None) -> Tensor:
    """A target as token ids (T,), on the CPU; of a string without special tokens.

    Args:
        tokenizer: The model's, any that Captum takes.
        target: Text or ids.
        gen_args: What has to be None, since nothing is generated.

    Raises:
        InvalidInputError: It is neither, or empty, or there are arguments to generate with.
    """
    if gen_args is not None:
        raise InvalidInputError(
            "gen_args: expected None, since the target is given and nothing is generated, got "
            f"{dict(gen_args)}"
        )
    if isinstance(target, str):
        ids = torch.tensor(tokenizer.encode(target, add_special_tokens=False), dtype=torch.long)
    elif isinstance(target, Tensor) and is_integral(target):
        ids = target.detach().clone().cpu().long()
    else:
        got = target.dtype if isinstance(target, Tensor) else type(target).__name__
        raise InvalidInputError(f"target: expected a string or token ids (T,), got {got}")
    if ids.dim() != 1:
        raise InvalidInputError(f"target: expected token ids (T,), got shape {tuple(ids.shape)}")
    if not len(ids):
        raise InvalidInputError(f"target: expected at least one token, got {target!r}")
    return ids


def written_ids(model: nn.Module, ids: Tensor, gen_args: Mapping[str, Any] | None) -> Tensor:
    """What a model writes after a prompt, (T,), on the CPU.

    Args:
        model: The model.
        ids: The prompt's ids, (L,), where the model takes them.
        gen_args: Arguments of its ``generate``; None for Captum's own.

    Raises:
        InvalidInputError: It has no ``generate``, or writes nothing.
    """
    generate = getattr(model, "generate", None)
    if not callable(generate):
        raise InvalidInputError(
            f"target: expected a string or token ids, since the {type(model).__name__} has no "
            "method `generate` to write one; got None"
        )
    ids = ids.unsqueeze(0)
    named: dict[str, Any] = {"input_ids": ids}
    named.update(DEFAULT_GEN_ARGS if gen_args is None else gen_args)
    parameters = inspect.signature(generate).parameters.values()
    if any(p.name == "attention_mask" or p.kind is p.VAR_KEYWORD for p in parameters):
        named.setdefault("attention_mask", torch.ones_like(ids))
    written = generate(**named)
    written = getattr(written, "sequences", written)
    answer: Tensor = written[0][ids.shape[1] :].cpu()
    if not len(answer):
        raise InvalidInputError("target: expected an answer, but the model writes none")
    return answer


def check_ids(name: str, ids: Tensor, layer: nn.Module) -> None:
    """Checks that a layer can embed token ids, where it says how many it knows.

    Raises:
        InvalidInputError: It cannot; the message has the name.
    """
    size = getattr(layer, "num_embeddings", None)
    if isinstance(size, int) and not bool(((ids >= 0) & (ids < size)).all()):
        raise InvalidInputError(
            f"{name}: expected token ids from 0 to {size - 1}, got {int(ids.min())} to "
            f"{int(ids.max())}; does the tokenizer belong to the model?"
        )


__all__ = ["check_ids", "given_ids", "written_ids"]
