"""Reader of prompts and their targets, given or written."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from captum_aml._captum import DEFAULT_GEN_ARGS, TextTokenInput
from captum_aml._utils.checks import is_integral
from captum_aml._utils.tokenizers import baseline_id
from captum_aml.attr.llm.inputs import Prompt, as_prompt
from captum_aml.attr.llm.rows import Example
from captum_aml.exceptions import InvalidInputError

if TYPE_CHECKING:
    from captum_aml.attr.llm.attribution import LLMAMLAttribution

#: What is explained: one of Captum's text inputs, which have no types, or a plain prompt.
TextInput = Any


def example_of(
    llm: LLMAMLAttribution,
    inp: TextInput,
    target: str | Tensor | None,
    gen_args: Mapping[str, Any] | None,
) -> Example:
    """A prompt and its target, or what the model writes where there is none.

    Raises:
        InvalidInputError: The prompt or the target is not as described.
    """
    tokenizer, layer = llm.tokenizer, llm.attr_method.embedding_layers[0]
    # Only what says no baseline of its own needs the tokenizer's.
    own = isinstance(inp, TextTokenInput)
    prompt = as_prompt(inp, tokenizer, 0 if own else baseline_id(tokenizer, llm.baseline))
    _check_ids("inp", prompt.ids, layer)
    _check_ids("inp (baselines)", prompt.baselines, layer)
    room = _room(llm.model, prompt, 1)
    if target is None:
        if gen_args is None and room is not None:
            # What is generated here has to fit, too.
            most = min(1 + room, DEFAULT_GEN_ARGS["max_new_tokens"])
            gen_args = {**DEFAULT_GEN_ARGS, "max_new_tokens": most}
        ids = _written_ids(llm.model, prompt.ids.to(llm.device), gen_args)
    else:
        ids = _given_ids(tokenizer, target, gen_args)
    _check_ids("target", ids, layer)
    # Any token marks that the whole is meant: best what follows an answer that is over.
    end = getattr(tokenizer, "eos_token_id", None)
    known = range(getattr(layer, "num_embeddings", 0))
    after = ids.new_tensor([end]) if end in known else ids[-1:]
    return Example(prompt, ids, after[: _room(llm.model, prompt, len(ids))])


def examples_of(
    llm: LLMAMLAttribution,
    name: str,
    prompts: Sequence[TextInput],
    targets: Sequence[str | Tensor] | None,
    gen_args: Mapping[str, Any] | None,
) -> list[Example]:
    """Prompts, which an error calls by ``name``, and their targets, as for :func:`example_of`.

    Raises:
        InvalidInputError: There is no prompt, one is not as described, or targets are missing.
    """
    if isinstance(prompts, str) or not isinstance(prompts, Sequence):
        raise InvalidInputError(
            f"{name}: expected a sequence of prompts, got {type(prompts).__name__}"
        )
    if not prompts:
        raise InvalidInputError(f"{name}: expected at least one prompt, got none")
    if targets is not None and (isinstance(targets, str) or len(targets) != len(prompts)):
        given = "one string" if isinstance(targets, str) else len(targets)
        raise InvalidInputError(
            f"targets: expected one for each of the {len(prompts)} {name}, got {given}"
        )
    each = [None] * len(prompts) if targets is None else targets
    return [example_of(llm, p, t, gen_args) for p, t in zip(prompts, each, strict=True)]


def _room(model: nn.Module, prompt: Prompt, n_tokens: int) -> int | None:
    """The number of tokens that a model takes beyond a prompt and so many of a target.

    Returns:
        None where it does not say how many it takes.

    Raises:
        InvalidInputError: It does not take these.
    """
    limit = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    if not isinstance(limit, int) or limit <= 0:
        return None
    room = limit - len(prompt.ids) - n_tokens
    if room < 0:
        raise InvalidInputError(
            f"inp, target: expected at most {limit} tokens together, which is what the model "
            f"takes, got {len(prompt.ids)} and {n_tokens}"
        )
    return room


def _given_ids(tokenizer: Any, target: str | Tensor, gen_args: Mapping[str, Any] | None) -> Tensor:
    """A target as token ids (T,), on the CPU; of a string without special tokens.

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


def _written_ids(model: nn.Module, ids: Tensor, gen_args: Mapping[str, Any] | None) -> Tensor:
    """The ids that a model writes after a prompt's ids (L,): (T,), on the CPU.

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


def _check_ids(name: str, ids: Tensor, layer: nn.Module) -> None:
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
