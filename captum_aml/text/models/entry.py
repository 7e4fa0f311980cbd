"""Entry of token ids: one layer that embeds them once, wherever and however often a model does.

Most models give their ids, as they are, to one embedding layer. Others embed them transposed
(XLNet), padded (Longformer, Reformer), by the layers of an encoder and of a decoder (BART, T5),
there one place further right, or change the embeddings in place (CTRL). What replaces the output of
an embedding layer, a mask or a method of Captum's, needs one layer that runs once for the ids as
they are given. Of these models a :class:`TokenEntry` is that layer. Which a model is, is found out
by a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from captum_aml._utils.hooks import tensors_in, with_tensors
from captum_aml.exceptions import CaptumAMLError, NoGradientError


class TokenEntry(nn.Module):
    """A layer that embeds each token once, for every layer of a model that embeds it.

    It runs in a pass of the model while :meth:`serving` is open, if it has a hook; without one the
    model embeds by itself. What it gives, hooks included, is what all layers of the model give that
    embed these ids.

    Args:
        model: The name of the model, for errors.
        tables: The layers that embed ids differently, each with its number of channels; those of
            one follow those of the other.
        layers: Every layer that embeds the ids, each with the number of its table.
        padding: The id of the padding token that the model may embed by itself; None for none.
        fault: What keeps the model's embeddings from being replaced. Default: "", nothing
    """

    #: Whether each token's embedding depends on its id alone, so that it takes no pass to know it.
    only_looks_up = True

    def __init__(
        self,
        model: str,
        tables: Sequence[tuple[nn.Module, int]],
        layers: Sequence[tuple[nn.Module, int]],
        *,
        padding: int | None = None,
        fault: str = "",
    ) -> None:
        super().__init__()
        self._model, self._padding, self._fault = model, padding, fault
        self.tables = nn.ModuleList(table for table, _ in tables)
        self._widths = [width for _, width in tables]
        # The tables are in the mode of their model, which is left as it is.
        self.training = self.tables.training = False
        self._layers = tuple(layers)
        self._given: Tensor | None = None

    @property
    def num_embeddings(self) -> int | None:
        """The number of ids."""
        sizes = [getattr(table, "num_embeddings", None) for table in self.tables]
        return min((size for size in sizes if isinstance(size, int)), default=None)

    def forward(self, ids: Tensor) -> Tensor:
        """Embeddings (N, L, D) of ids (N, L).

        Raises:
            NoGradientError: Those of the model cannot be replaced.
        """
        if self._fault:
            raise NoGradientError(self._refusal(self._fault))
        return torch.cat([_embedded(table, ids) for table in self.tables], dim=-1)

    @contextmanager
    def serving(self, ids: Tensor, others: Sequence[Tensor] = ()) -> Iterator[None]:
        """While open, the model's layers give this one's embeddings of a pass's ids.

        Args:
            ids: The ids (N, L).
            others: What else the model is given and may embed by the same layers, such as token
                types.

        Raises:
            NoGradientError: The model embeds them in another order than is known.
        """
        if not (self._forward_hooks or self._forward_pre_hooks or self._backward_hooks):
            yield
            return
        parts = self(ids).flatten(0, 1).split(self._widths, dim=-1)
        everything = torch.arange(ids.numel(), device=ids.device).reshape(ids.shape)

        def answer(part: Tensor) -> Callable[..., Any]:
            def hook(_: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
                asked = _ids_in(args, kwargs)
                rows = everything if self._given is None else self._given
                found = None if asked is None else places_of(asked, ids.flatten()[rows])
                if found is None:
                    alike = [each.flatten()[rows] for each in others if each.shape == ids.shape]
                    if self._is_other(asked, alike):
                        return None
                    raise NoGradientError(self._refusal("embeds tokens in an order of its own"))
                (own,) = tensors_in(output)
                # An indexed copy, which the model may change in place.
                given = part.to(own)[rows.flatten()[found.clamp(min=0)].to(own.device)]
                is_own = (found < 0).to(own.device)[..., None]
                return with_tensors(output, iter([torch.where(is_own, own, given)]))

            return hook

        with ExitStack() as stack:
            for layer, table in self._layers:
                handle = layer.register_forward_hook(answer(parts[table]), with_kwargs=True)
                stack.callback(handle.remove)
            yield

    @contextmanager
    def given(self, places: Tensor) -> Iterator[None]:
        """While open, the model is given some of the ids that are served.

        Args:
            places: Which, in the rows that it is given: their places in ``ids.flatten()``.
        """
        before, self._given = self._given, places
        try:
            yield
        finally:
            self._given = before

    def _is_other(self, asked: Tensor | None, others: Sequence[Tensor]) -> bool:
        """Whether what is embedded is another input, or padding alone."""
        if asked is None:
            return False
        only_padding = self._padding is not None and bool((asked == self._padding).all())
        return only_padding or any(_same(asked.flatten(), other.flatten()) for other in others)

    def _refusal(self, fault: str) -> str:
        return (
            f"model: {self._model} {fault}, so that its embeddings cannot be masked; explain it "
            "with method='occlusion', or another that replaces tokens by others"
        )


def places_of(asked: Tensor, ids: Tensor) -> Tensor | None:
    """The places of the ids that a model embeds among those that it was given.

    They may be as they were, or in another shape; transposed; with others before or after them; or
    one place further right, behind a token that is the row's last one of its kind where it has one
    (mBART's language) and else the model's own (BART, T5).

    Args:
        asked: What is embedded.
        ids: What the model was given, (N, L).

    Returns:
        For each id of ``asked`` the number of its place in ``ids.flatten()``, -1 where it is the
        model's own; None where it is none of the above.
    """
    asked = asked.to(ids.device)
    n, length = ids.shape
    places = torch.arange(ids.numel(), device=ids.device).reshape(ids.shape)
    if asked.numel() == ids.numel() and torch.equal(asked.flatten(), ids.flatten()):
        return places.reshape(asked.shape)
    if _same(asked, ids.T):
        return places.T
    if asked.dim() != 2 or asked.shape[0] != n or asked.shape[1] < length:
        return None
    more = asked.shape[1] - length
    if more == 0:
        if not torch.equal(asked[:, 1:], ids[:, :-1]):
            return None
        order = torch.arange(length, device=ids.device)
        last = torch.where(ids == asked[:, :1], order, -1).amax(dim=1, keepdim=True)
        first = torch.where(last < 0, -1, places[:, :1] + last)
        return torch.cat([first, places[:, :-1]], dim=1)
    for before in (0, more):
        if torch.equal(asked[:, before : before + length], ids):
            return F.pad(places, (before, more - before), value=-1)
    return None


def find_entry(
    model: PreTrainedModel,
    run: Callable[[TokenEntry | None], Tensor],
    ids: Tensor,
    *,
    always: bool = False,
) -> TokenEntry | None:
    """The entry of a model, found by a pass; None if its embedding layer embeds ids as given, once.

    Args:
        model: The model, in evaluation mode.
        run: Runs it on the ids, with an entry if there is one, and gives a tensor.
        ids: Ids (1, L) that differ from each other, an odd number of them, or rows of such, as the
            model is given them.
        always: Whether a model needs an entry although it embeds these ids as they are.
    """
    with _watched(model) as lookups, torch.inference_mode(False), torch.no_grad():
        try:
            run(None)
        except Exception:  # of any type: what the model lacks is said where it is used
            lookups.clear()
            if input_embeddings(model) is not None:
                return None
        found = [lookup for lookup in lookups if lookup.looks_up(ids)]
    if not always and len(found) == 1 and found[0].is_as_given(model, ids):
        return None
    tables: list[nn.Module] = []
    embeddings: list[Tensor] = []
    layers: dict[nn.Module, int] = {}
    for lookup in found:
        with torch.no_grad():
            embedded = _embedded(lookup.layer, ids)
        same = [_same(embedded, known) for known in embeddings]
        layers[lookup.layer] = same.index(True) if True in same else len(tables)
        if True not in same:
            tables.append(lookup.layer)
            embeddings.append(embedded)
    widths = [embedded.shape[-1] for embedded in embeddings]
    name, parts = type(model).__name__, list(zip(tables, widths, strict=True))
    if not parts:
        return TokenEntry(name, [], [], fault="embeds tokens by no table of embeddings")
    padding = model.config.get_text_config().pad_token_id
    entry = TokenEntry(name, parts, list(layers.items()), padding=padding)
    fault = _without_gradient(entry, run)
    return entry if fault is None else TokenEntry(name, parts, [], fault=fault)


def _without_gradient(entry: TokenEntry, run: Callable[[TokenEntry], Tensor]) -> str | None:
    """Why a model's output has no gradient with respect to what an entry gives; None if it has."""
    given: list[Tensor] = []

    def keep(_: nn.Module, __: object, embedded: Tensor) -> Tensor:
        given.append(embedded.detach().requires_grad_())
        return given[0]

    handle = entry.register_forward_hook(keep)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            output = run(entry).sum()
            torch.autograd.grad(output, given[0])
    except CaptumAMLError:
        raise
    except Exception as error:  # of any type: Reformer refuses it by an assertion
        return f"gives no gradient ({str(error).splitlines()[0]})"
    finally:
        handle.remove()
    return None


@dataclass(frozen=True)
class _Lookup:
    """A call of a layer that has a table.

    Attributes:
        layer: The layer.
        asked: The ids that it was given.
        output: What it gave.
        version: The version of its output's tensor then: it counts changes in place.
        kept: Its output's values then.
    """

    layer: nn.Module
    asked: Tensor
    output: Any
    version: int
    kept: Tensor

    def looks_up(self, ids: Tensor) -> bool:
        """Whether it embeds the given ids, each by itself."""
        places = places_of(self.asked, ids)
        if places is None:
            return False
        backwards = _embedded(self.layer, ids.flip(1)).flip(1).flatten(0, 1)
        ours = places >= 0
        return torch.allclose(backwards[places[ours]], self.kept[ours], rtol=1e-3, atol=1e-6)

    def is_as_given(self, model: PreTrainedModel, ids: Tensor) -> bool:
        """Whether the model's embedding layer gives its embeddings of the ids to the model."""
        return (
            self.layer is input_embeddings(model)
            and _same(self.asked, ids)
            and isinstance(self.output, Tensor)
            and self.output._version == self.version
        )


@contextmanager
def _watched(model: PreTrainedModel) -> Iterator[list[_Lookup]]:
    """Records what layers with a table are given while open; of layers in layers, the outer one."""
    lookups: list[_Lookup] = []
    starts: list[int] = []

    def before(_: nn.Module, args: Any) -> None:
        starts.append(len(lookups))

    def after(layer: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        start = starts.pop()
        asked, tensors = _ids_in(args, kwargs), tensors_in(output)
        if asked is None or len(tensors) != 1 or tensors[0].shape[:-1] != asked.shape:
            return
        (given,) = tensors
        lookups[start:] = [_Lookup(layer, asked.clone(), output, given._version, given.clone())]

    own = input_embeddings(model)
    with ExitStack() as stack:
        for layer in model.modules():
            table = getattr(layer, "weight", None)
            if layer is own or (isinstance(table, Tensor) and table.dim() == 2):
                stack.callback(layer.register_forward_pre_hook(before).remove)
                stack.callback(layer.register_forward_hook(after, with_kwargs=True).remove)
        yield lookups


def input_embeddings(model: PreTrainedModel) -> nn.Module | None:
    """The embedding layer that a model names; None where it names none."""
    try:
        layer = model.get_input_embeddings()
    except NotImplementedError:  # CANINE, which embeds characters by their hashes
        return None
    return layer if isinstance(layer, nn.Module) else None  # Perceiver's are no layer


def _ids_in(args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor | None:
    """The first argument, if it is a tensor of integers."""
    first = next(iter((*args, *kwargs.values())), None)
    if not isinstance(first, Tensor) or first.is_floating_point() or first.dtype == torch.bool:
        return None
    return first


def _embedded(layer: nn.Module, ids: Tensor) -> Tensor:
    """What a layer gives for ids, past its hooks."""
    (embedded,) = tensors_in(layer.forward(ids))
    return embedded


def _same(a: Tensor | None, b: Tensor) -> bool:
    return a is not None and a.shape == b.shape and torch.equal(a.to(b.device), b)
