"""Attention of a transformer as scores: the last layer's, and attention rollout.

Both take how much the position that is read out attends to each token: the first token of an
encoder (``[CLS]``), the last token of a causal model and of one whose configuration says so
(``summary_type="last"``, XLNet). Attention does not depend on the explained class and does not say
whether a token supports it.

    attention          Ā_K[r, i]
    attention-rollout  (Â_K ··· Â_1)[r, i]        Â_k = (Ā_k + I) / 2

``Ā_k`` (L, L) is layer k's attention, the mean over its heads, of K layers; ``r`` the position
that is read out, ``i`` a token. In the last layer no other row than ``r`` reaches the logits.
Models that pool over all positions are read at their first token too, for want of a better rule.
Models that do not give the attention between all tokens, in shares of one, for each of their layers
are refused: those with layers of another kind (MiniMax, Jamba), that pool tokens (Funnel), whose
attention has windows (Longformer), and encoder-decoders, whose attention is of two kinds.
What a group of tokens is attended to is the sum over its tokens.

Source of the rollout: Abnar and Zuidema (2020), Quantifying Attention Flow in Transformers,
section 3.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from captum_aml._utils.hooks import unwrapped
from captum_aml.exceptions import InvalidInputError
from captum_aml.masking.call import Call
from captum_aml.masking.forward import underlying_model
from captum_aml.methods.adapter import Subject, group_sums, logits_of, scoring_method
from captum_aml.typing import ForwardFunc

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

#: What a sum of shares may exceed one by: some models compute them in half precision.
_ROUNDING = 0.02

_INSTEAD = "'occlusion' takes any model"


def last_layer(layers: Tensor, tokens: Tensor, reads_last: bool = False) -> Tensor:
    """The last layer's attention.

    Args:
        layers: Attention (K, N, L, L), from rows to columns, a mean over heads.
        tokens: True where there is a token, False at padding (N, L).
        reads_last: Whether the last token is read out, whatever the attention. Default: False

    Returns:
        Scores (N, L).
    """
    return _read_out(layers[-1], _read_out_position(layers, tokens, reads_last))


def rollout(layers: Tensor, tokens: Tensor, reads_last: bool = False) -> Tensor:
    """Attention followed through all layers; arguments and result as ``last_layer``."""
    identity = torch.eye(layers.shape[-1], device=layers.device)
    flow = identity.expand(layers.shape[1:])
    for layer in layers:
        flow = (layer + identity) / 2 @ flow
    return _read_out(flow, _read_out_position(layers, tokens, reads_last))


def _read_out_position(layers: Tensor, tokens: Tensor, reads_last: bool) -> Tensor:
    """The last token (N,) of texts whose first token sees itself alone, the first of others."""
    length = tokens.shape[1]
    first = tokens.int().argmax(dim=1)
    last = length - 1 - tokens.flip(1).int().argmax(dim=1)
    if reads_last:
        return last
    seen = torch.stack([_read_out(layer, first) for layer in layers]).sum(dim=0)
    later = torch.arange(length, device=tokens.device) > first[:, None]
    bidirectional = (seen * later).sum(dim=1) > 0
    return torch.where(bidirectional, first, last)


def _read_out(attention: Tensor, position: Tensor) -> Tensor:
    return attention[torch.arange(len(position), device=position.device), position]


def _register(
    name: str, summary: str, score: str, read: Callable[[Tensor, Tensor, bool], Tensor]
) -> None:
    @scoring_method(
        name,
        summary,
        family="attention",
        signed=False,
        relative=True,
        score=score,
        uses_target=False,
        check=lambda subject: _transformer(name, subject.forward_func),
    )
    def scores(subject: Subject, call: Call) -> Tensor:
        model = _transformer(name, subject.forward_func)
        run = subject.forward_func
        if unwrapped(run) is model:

            def run(ids: Tensor, *args: object) -> Any:  # whatever the model gives
                return subject.forward_func(ids, *args).logits

        (ids,) = call.inputs
        with _eager(model), _recorded(name, model) as passes:
            logits_of(run, n_classes=subject.n_classes)(ids, *call.additional_forward_args)
        if len(passes) != 1:
            raise InvalidInputError(
                f"forward_func: {name} expects it to run its model once, it ran {len(passes)} times"
            )
        tokens = _tokens(call)
        _check_shares(name, model, passes[0], tokens)
        layers = torch.stack([layer.float().mean(dim=1) for layer in passes[0]])
        # What padding attends to has no meaning, and may be NaN.
        layers = torch.where(tokens[:, :, None] & tokens[:, None, :], layers, 0.0)
        # A sum of shares of one can exceed it by rounding.
        reads_last = getattr(model.config, "summary_type", None) == "last"
        return group_sums(read(layers, tokens, reads_last), call).clamp(max=1.0)


_register(
    "attention",
    "the last layer's attention from the position that is read out",
    "share of the last layer's attention",
    last_layer,
)
_register(
    "attention-rollout",
    "attention from the position that is read out, followed through all layers",
    "share of attention through all layers",
    rollout,
)


def _transformer(name: str, forward_func: ForwardFunc) -> PreTrainedModel:
    from transformers import PreTrainedModel  # takes seconds

    model = underlying_model(forward_func)
    if not isinstance(model, PreTrainedModel):
        raise InvalidInputError(
            f"forward_func: {name} expects a model of transformers or a text model, which can give "
            f"its attention, got {type(forward_func).__name__}"
        )
    return model


def _check_shares(
    name: str, model: PreTrainedModel, layers: Sequence[Tensor], tokens: Tensor
) -> None:
    """Checks that the attention of K layers is the tokens' to each other, in shares of one.

    Raises:
        InvalidInputError: It is not.
    """
    length, n_layers = tokens.shape[1], getattr(model.config, "num_hidden_layers", None)
    came = type(model).__name__
    for layer in layers:
        if layer.shape[0] != len(tokens) or layer.shape[2:] != (length, length):
            what = f"attention between the {length} tokens of the ids"
            came = (
                f"layers of shape {tuple(layer.shape)} from {came}, as of a function that adds "
                "tokens of its own or a model that pools them"
            )
            break
        if model.training:
            continue  # dropout leaves some of the shares out and makes the others larger
        shares = layer.transpose(1, 2)[tokens]
        if bool((shares < 0).any()) or bool((shares.sum(dim=-1) > 1 + _ROUNDING).any()):
            what, came = "attention in shares of one", f"other weights from {came}"
            break
    else:
        if n_layers is None or len(layers) == n_layers:
            return
        what, came = "attention in every layer", f"{len(layers)} of {n_layers} from {came}"
    raise InvalidInputError(f"forward_func: {name} expects {what}, got {came}; {_INSTEAD}")


def _tokens(call: Call) -> Tensor:
    """True at tokens (N, L): where the attention mask, the first argument, is not 0."""
    (ids,), mask = call.inputs, next(iter(call.additional_forward_args), None)
    if isinstance(mask, Tensor) and mask.shape == ids.shape:
        return mask != 0
    return torch.ones_like(ids, dtype=torch.bool)


@contextmanager
def _recorded(name: str, model: PreTrainedModel) -> Iterator[list[tuple[Tensor, ...]]]:
    """Records the attention of every pass of the model: the layers' (N, heads, L, L) of each.

    Transformers installs hooks of its own for it when it is first requested. They stay with
    the model and do nothing until the next request.
    """
    if model.config.is_encoder_decoder:
        raise InvalidInputError(
            f"forward_func: {name} expects a model that gives the attention of one stack of "
            f"layers, got {type(model).__name__}, which gives an encoder's and a decoder's; "
            f"{_INSTEAD}"
        )
    parameters = inspect.signature(model.forward).parameters.values()
    if not any(p.name == "output_attentions" or p.kind is p.VAR_KEYWORD for p in parameters):
        raise InvalidInputError(
            f"forward_func: {name} expects a model with attention, {_came(model)}"
        )
    passes: list[tuple[Tensor, ...]] = []

    def request(
        _: nn.Module, args: Any, kwargs: dict[str, Any]
    ) -> Any:  # the model's own arguments
        return args, {**kwargs, "output_attentions": True, "return_dict": True}

    def keep(_: nn.Module, __: Any, output: Any) -> None:  # whatever the model gives
        layers = getattr(output, "attentions", None)
        windows = getattr(output, "global_attentions", None) is not None  # Longformer's
        if windows or not layers or not all(isinstance(a, Tensor) and a.dim() == 4 for a in layers):
            raise InvalidInputError(
                f"forward_func: {name} expects a model that gives each layer's attention as "
                f"(N, heads, L, L), {_came(model)}"
            )
        passes.append(tuple(layers))

    handles = [
        model.register_forward_pre_hook(request, with_kwargs=True),
        model.register_forward_hook(keep),
    ]
    try:
        yield passes
    finally:
        for handle in handles:
            handle.remove()


def _came(model: PreTrainedModel) -> str:
    return f"got {type(model).__name__}, which gives none; {_INSTEAD}"


@contextmanager
def _eager(model: PreTrainedModel) -> Iterator[None]:
    """Holds the model at the one implementation of attention that gives its weights."""
    before = [
        (config, config._attn_implementation_internal)
        for config in {id(config): config for config in _configs(model)}.values()
    ]
    try:
        model.set_attn_implementation("eager")
        yield
    finally:
        for config, implementation in before:
            config._attn_implementation_internal = implementation


def _configs(model: PreTrainedModel) -> Iterator[PretrainedConfig]:
    """The configurations of a model and of its parts; some more than once."""
    from transformers import PreTrainedModel

    waiting = [m.config for m in model.modules() if isinstance(m, PreTrainedModel)]
    while waiting:
        config = waiting.pop()
        yield config
        waiting += [c for key in config.sub_configs if (c := getattr(config, key, None))]
