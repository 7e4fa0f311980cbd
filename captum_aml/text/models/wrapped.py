"""The model of transformers inside of what wraps it: adapters, compiled and parallel modules.

Explanations go through a model's own layers, where masks, hooks and gradients are, so that a
wrapper is left aside where the model behind it computes the same. Nothing of the caller's is
changed: where a part has to be another one, the result is a copy that shares all other parts and
the weights.
"""

from __future__ import annotations

import copy
import inspect
import sys
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from captum_aml._utils.isolation import evaluating
from captum_aml.exceptions import InvalidInputError

#: The only child of a module that does nothing but run it: of ``torch.compile``; of DataParallel,
#: DistributedDataParallel, averaged weights and engines; of FSDP.
_INNER = ("_orig_mod", "module", "_fsdp_wrapped_module")

_HALF = (torch.float16, torch.bfloat16)


def model_behind(model: nn.Module) -> nn.Module:
    """The model of transformers that a wrapper runs; anything else as it is.

    - PEFT: the base model with the active adapter in it, also of the tuner inside.
    - ``torch.compile``, of the whole model, of its ``forward`` or of a part: the same model, not
      compiled, since compiled code runs neither hooks nor what is put in the place of a layer.
    - DataParallel, DistributedDataParallel and other modules around one ``module``: this one.
    - A model in half precision on the CPU: a copy in float32, which is said by a warning. It takes
      twice the memory of the model's weights in addition to them.

    Args:
        model: A model or a wrapper.

    Raises:
        InvalidInputError: The adapter does a part of its work outside of the base model, or the
            weights are spread over processes.
    """
    _check_whole(model)
    found = model
    while not isinstance(found, PreTrainedModel):
        inner = _inner(found)
        if inner is None:
            return model
        found = inner
    return _in_float32(_not_compiled(found, {}))


def transformers_model(model: nn.Module) -> PreTrainedModel:
    """The same, which has to be a model of transformers.

    Raises:
        InvalidInputError: There is none, or see :func:`model_behind`.
    """
    found = model_behind(model) if isinstance(model, nn.Module) else model
    if not isinstance(found, PreTrainedModel):
        raise InvalidInputError(
            f"model: expected a model of transformers, got {type(model).__name__}"
        )
    check_reads_text(found)
    return found


def check_reads_text(model: PreTrainedModel) -> None:
    """Refuses a model that takes no token ids.

    Raises:
        InvalidInputError: It reads images, say.
    """
    if "input_ids" not in inspect.signature(model.forward).parameters:
        raise InvalidInputError(
            f"model: expected a model of texts, got {type(model).__name__}, which takes "
            f"{model.main_input_name}; captum_aml.AMLAttribution and LayerAMLAttribution explain "
            "models of images and of other inputs"
        )


def _inner(module: nn.Module) -> nn.Module | None:
    """What a wrapper runs, one layer of wrapping less; None where it is no wrapper."""
    # Who has such an object has imported the package.
    peft = sys.modules.get("peft")
    if peft is not None:
        tuner = sys.modules["peft.tuners.tuners_utils"].BaseTuner
        if isinstance(module, peft.PeftModel | peft.PeftMixedModel):
            inside = module.base_model  # of virtual tokens, the model itself
            return _tuned(module, inside.model if isinstance(inside, tuner) else inside)
        if isinstance(module, tuner):
            return _tuned(module, module.model)
    children = module._modules
    if len(children) == 1 and next(iter(children)) in _INNER:
        return next(iter(children.values()))
    return None


# peft may not be installed, and has no types.
def _tuned(wrapper: Any, base: nn.Module) -> nn.Module:
    """The base model with adapters in it, which computes what its wrapper does.

    Raises:
        InvalidInputError: It does not: the wrapper adds virtual tokens, say.
    """
    if not isinstance(base, PreTrainedModel):
        return base
    try:
        ids = _some_ids(base)
        given = {"input_ids": ids}
        if "decoder_input_ids" in inspect.signature(base.forward).parameters:
            given["decoder_input_ids"] = ids
        with evaluating(wrapper), torch.no_grad():
            same = torch.allclose(wrapper(**given)[0], base(**given)[0])
        reason = "its output is another than that of the model with the adapter in it"
    except Exception as error:  # of any type: what the wrapper needs is not known
        same, reason = False, str(error).splitlines()[0] if str(error) else type(error).__name__
    if not same:
        kind = getattr(getattr(wrapper, "active_peft_config", None), "peft_type", "")
        name = f"{type(wrapper).__name__} {getattr(kind, 'value', kind)}".strip()
        raise InvalidInputError(
            f"model: expected an adapter that works inside of its model's layers (LoRA and its "
            f"kin), got a {name} ({reason}); explain it as a forward function with "
            "captum_aml.LayerAMLAttribution"
        )
    return base


def _some_ids(model: PreTrainedModel) -> Tensor:
    """Token ids (1, 5) that the model takes."""
    table: Any = model.get_input_embeddings()
    weight = next(table.parameters())
    ids = torch.arange(5) % weight.shape[0]
    end = model.config.get_text_config().eos_token_id
    if isinstance(end, int):  # BART and T5 read their output at it, and want one
        ids = torch.where(ids == end, 0 if end else 1, ids)
        ids[-1] = end
    placed: Tensor = ids[None].to(weight.device)
    return placed


def _check_whole(model: nn.Module) -> None:
    """Refuses a model whose weights are spread over processes.

    Raises:
        InvalidInputError: They are.
    """
    fsdp = sys.modules.get("torch.distributed.fsdp")
    kinds = () if fsdp is None else (fsdp.FSDPModule, fsdp.FullyShardedDataParallel)
    sharded = any(isinstance(part, kinds) for part in model.modules())
    # DeepSpeed leaves a number in the place of a weight.
    if sharded or any(hasattr(weight, "ds_id") for weight in model.parameters()):
        raise InvalidInputError(
            "model: expected one with all of its weights, got one that FSDP or DeepSpeed spreads "
            "over processes; save it whole (accelerator.get_state_dict) and explain what is loaded "
            "from there"
        )


def _not_compiled(model: PreTrainedModel, known: dict[int, nn.Module]) -> PreTrainedModel:
    """The model without compiled parts: itself, or a copy that shares what is not compiled."""
    result = _eager(model, known)
    assert isinstance(result, PreTrainedModel)
    return result


def _eager(module: nn.Module, known: dict[int, nn.Module]) -> nn.Module:
    if id(module) in known:  # a part that stands at several places
        return known[id(module)]
    inner = module._modules.get("_orig_mod")
    if inner is not None:
        result = _eager(inner, known)
    else:
        children = {
            name: None if child is None else _eager(child, known)
            for name, child in module._modules.items()
        }
        forward = vars(module).get("forward")
        compiled = hasattr(forward, "_torchdynamo_orig_callable")
        same = all(child is module._modules[name] for name, child in children.items())
        if same and not compiled and module._compiled_call_impl is None:
            result = module
        else:
            result = copy.copy(module)  # without its compiled call
            result._modules = children
            if compiled:
                del result.forward
    known[id(module)] = result
    return result


def _in_float32(model: PreTrainedModel) -> PreTrainedModel:
    """The model, or its copy in float32 where it computes in half precision on the CPU."""
    weights = [weight for weight in model.parameters() if weight.is_floating_point()]
    half = next((weight.dtype for weight in weights if weight.dtype in _HALF), None)
    placed = any(hasattr(part, "_hf_hook") for part in model.modules())
    quantized = bool(getattr(model, "is_quantized", False))
    if half is None or placed or quantized or any(w.device.type != "cpu" for w in weights):
        return model
    warnings.warn(
        f"model: its {str(half).removeprefix('torch.')} weights are explained in float32, by a "
        "copy; load it with dtype=torch.float32 to have it once in memory",
        stacklevel=4,
    )
    copied = copy.deepcopy(model)
    copied.float()
    return copied
