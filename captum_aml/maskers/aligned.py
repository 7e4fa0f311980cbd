r"""A masker with another tokenizer: an encoder explains a decoder.

The ids to explain are turned back into text, the masker's own tokenizer cuts that text anew, and
each token :math:`t` of the model gets the pool of the logits :math:`h_s` of the masker's tokens
that share at least one character with it:

.. math:: g_t = \mathrm{pool} \{ h_s : a_t \cap b_s \ne \emptyset \}

with half-open spans of characters :math:`a_t` and :math:`b_s`, and the largest, the mean or the
smallest as pool. Only tokens that can be masked are read: a prompt, special tokens and padding are
not part of the masker's text. Where something stands between two of them, as between both texts of
a pair, the words there are kept apart.

- A token without characters has the logit 0. What is not maskable scores 0.
- A token whose characters the masker's tokenizer drops, such as a line break, has the lowest logit
  that its example's other tokens have: nothing supports it, so it may not outrank any.
- A token that its tokenizer calls unknown stands for U+FFFD.
- Texts longer than the masker takes are cut into windows that follow on each other, and each of
  them is conditioned on the same prediction.

Source: Barkan et al., Findings of EMNLP 2024 (pooling by the largest). Deviations: windows, and the
two other pools.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from captum_aml._utils.checks import as_count, is_integral
from captum_aml.exceptions import InvalidInputError
from captum_aml.maskers._alignment import checked_pooling, pooled
from captum_aml.maskers._windows import Aligner, Alignment, StoredTokenizer
from captum_aml.maskers.base import MaskerInputs, MaskerWindows, as_logits
from captum_aml.maskers.registry import describe_masker, masker_from, register_masker
from captum_aml.maskers.transformer import TransformerMasker

if TYPE_CHECKING:  # importing transformers takes seconds: only what needs it pays for it
    from transformers import PreTrainedTokenizerBase

#: What a tokenizer without a limit gives for one is far above this.
_NO_LIMIT = 10**9


@dataclass(frozen=True)
class _AlignedWindows(MaskerWindows):
    """Windows and the way back.

    Attributes:
        partners: The model's tokens and the masker's that share characters, as places in the
            flattened (N, L) and (R, S), (P,) each.
        has_text: The model's tokens that stand for characters, (N, L).
    """

    partners: tuple[Tensor, Tensor]
    has_text: Tensor


@register_masker("aligned", needs=("files",))
class AlignedMasker(nn.Module):
    """Carries the logits of a masker over to the tokens of another tokenizer.

    It takes ids, and the tokenizer that they are of, so that it stands wherever another masker
    does. Alignments are remembered, up to 64 MB of them. All windows of a batch run at once: long
    texts take the memory of as many rows of the inner masker.

    Args:
        masker: The masker that reads the text, such as a
            :class:`~captum_aml.maskers.TransformerMasker`. It becomes part of this one. It is given
            ids of its own tokenizer as ``inputs`` (and as ``features``, as nothing of its own is
            masked), with their attention mask and token types.
        tokenizer: The explained model's tokenizer, a fast one. It is copied.
        masker_tokenizer: The masker's own, likewise.
        pooling: How the logits of several tokens become one: ``max``, ``mean`` or ``min``.
            Default: ``max``
        max_length: The most tokens of a window, special ones included. Default: None, what the
            masker takes beside the prediction

    Raises:
        InvalidInputError: A tokenizer is a slow one, the pooling is unknown, or ``max_length``
            leaves no room for text or is more than the masker takes.
    """

    def __init__(
        self,
        masker: nn.Module,
        *,
        tokenizer: PreTrainedTokenizerBase | StoredTokenizer,
        masker_tokenizer: PreTrainedTokenizerBase | StoredTokenizer,
        pooling: str = "max",
        max_length: int | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(masker, nn.Module):
            raise InvalidInputError(
                f"masker: expected a torch.nn.Module, got {type(masker).__name__}"
            )
        of_model = StoredTokenizer.of("tokenizer", tokenizer)
        own = StoredTokenizer.of("masker_tokenizer", masker_tokenizer)
        limit = getattr(masker, "max_length", None)
        if max_length is None:
            least = min(
                int(getattr(masker_tokenizer, "model_max_length", _NO_LIMIT)),
                _NO_LIMIT if limit is None else limit,
            )
            max_length = least if least < _NO_LIMIT else None
        elif limit is not None and as_count("max_length", max_length) > limit:
            raise InvalidInputError(
                f"max_length: expected at most the {limit} tokens that the masker takes beside the "
                f"prediction, got {max_length}"
            )
        self._aligner = Aligner(of_model, own, max_length=max_length)
        self.pooling = checked_pooling(pooling)
        self.masker = masker
        # A masker that has nothing to learn counts as fitted here, too.
        self.fitted = bool(getattr(masker, "fitted", True))

    @classmethod
    def from_pretrained(
        cls,
        encoder: str | os.PathLike[str],
        *,
        tokenizer: PreTrainedTokenizerBase,
        n_classes: int,
        pooling: str = "max",
        masker_tokenizer: PreTrainedTokenizerBase | None = None,
        max_length: int | None = None,
        revision: str | None = None,
        seed: int = 0,
    ) -> AlignedMasker:
        """Starts from a pretrained encoder and its tokenizer: a local folder or a hub id.

        The arguments are those of the class, of which ``masker_tokenizer`` defaults to the one
        beside the encoder, and of :meth:`TransformerMasker.from_pretrained
        <captum_aml.maskers.TransformerMasker.from_pretrained>`.

        Raises:
            InvalidInputError: It is a causal decoder, or as for the class.
        """
        if masker_tokenizer is None:
            from transformers import AutoTokenizer

            masker_tokenizer = AutoTokenizer.from_pretrained(
                os.fspath(encoder),
                revision="main" if revision is None else revision,
                trust_remote_code=False,
            )
            assert masker_tokenizer is not None
        return cls(
            TransformerMasker.from_pretrained(
                encoder, n_classes=n_classes, revision=revision, seed=seed
            ),
            tokenizer=tokenizer,
            masker_tokenizer=masker_tokenizer,
            pooling=pooling,
            max_length=max_length,
        )

    @property
    def max_length(self) -> int | None:
        """The most tokens of a window, special ones included; None for one window."""
        return self._aligner.max_length

    @property
    def config(self) -> dict[str, Any]:
        """The argument of :meth:`from_config`, as JSON values; :attr:`files` go with it."""
        return {
            "masker": describe_masker(self.masker),
            "tokenizer": self._aligner.model.description,
            "masker_tokenizer": self._aligner.masker.description,
            "pooling": self.pooling,
            "max_length": self.max_length,
        }

    @property
    def files(self) -> dict[str, bytes]:
        """The tokenizers' content, megabytes of JSON, by its SHA-256."""
        kept = (self._aligner.model, self._aligner.masker)
        return {tokenizer.digest: tokenizer.content.encode() for tokenizer in kept}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], files: Mapping[str, bytes]) -> AlignedMasker:
        """Builds the masker with random weights.

        Args:
            config: What :attr:`config` gave.
            files: What :attr:`files` gave.

        Raises:
            InvalidInputError: The inner masker is of a class of the user's own, or a tokenizer
                cannot be read.
        """
        inner = config["masker"]
        if inner["type"] == "custom":
            raise InvalidInputError(
                "masker: the inner masker is of a class of your own; build the AlignedMasker with "
                "one of that class and pass it as masker="
            )
        of_model, own = (
            StoredTokenizer.from_description(config[name], files)
            for name in ("tokenizer", "masker_tokenizer")
        )
        return cls(
            masker_from(inner["type"], inner["config"]),
            tokenizer=of_model,
            masker_tokenizer=own,
            pooling=config["pooling"],
            max_length=config["max_length"],
        )

    def forward(self, inputs: MaskerInputs) -> Tensor:
        """One logit for each of the model's tokens, (N, L).

        Raises:
            InvalidInputError: What is explained is no single sequence of ids, or an id that could
                be masked is none of the tokenizer's.
        """
        windows = self.windows(inputs)
        shape = windows.inputs.inputs[0].shape
        logits = as_logits(self.masker(windows.inputs), [shape])[0]
        # What mixed precision computed is pooled, and compared, in float32.
        values = logits.to(torch.promote_types(logits.dtype, torch.float32)).flatten()
        n, length = windows.has_text.shape
        flat, has_partner = pooled(values, windows.partners, n * length, self.pooling)
        pools, has_partner = flat.view(n, length), has_partner.view(n, length)
        lowest = pools.detach().masked_fill(~has_partner, torch.inf).amin(dim=1, keepdim=True)
        lowest = lowest.masked_fill(lowest.isposinf(), 0.0)
        # Without a partner the pool is 0.
        return torch.where(windows.has_text & ~has_partner, lowest, pools)

    def windows(self, inputs: MaskerInputs) -> _AlignedWindows:
        """The inner masker's inputs for these, and the way back.

        Raises:
            InvalidInputError: See :meth:`forward`.
        """
        ids, maskable = _readable(inputs)
        places = [np.flatnonzero(row) for row in maskable]
        alignments = [
            self._aligner.align(row[own], own) for row, own in zip(ids, places, strict=True)
        ]
        device = inputs.inputs[0].device
        own_inputs, examples, where = self._own_inputs(alignments, inputs.probabilities, device)
        has_text = np.zeros(ids.shape, dtype=bool)
        tokens, others = [], []
        for row, (alignment, own) in enumerate(zip(alignments, places, strict=True)):
            has_text[row, own] = alignment.has_text
            tokens.append(row * ids.shape[1] + own[alignment.tokens])
            others.append(where[row][alignment.others])
        return _AlignedWindows(
            network=self.masker,
            inputs=own_inputs,
            examples=examples,
            partners=(
                torch.from_numpy(np.concatenate(tokens)).to(device),
                torch.from_numpy(np.concatenate(others)).to(device),
            ),
            has_text=torch.from_numpy(has_text).to(device),
        )

    def _own_inputs(
        self, alignments: list[Alignment], probabilities: Tensor, device: torch.device
    ) -> tuple[MaskerInputs, Tensor, list[np.ndarray[Any, np.dtype[np.int64]]]]:
        """Windows of all texts, padded on the right, and where each text's tokens are in them."""
        lengths = [alignment.window_lengths for alignment in alignments]
        # A tokenizer without special tokens makes nothing of an empty text.
        width = max(1, max(length for own in lengths for length in own))
        n_windows = np.array([len(own) for own in lengths])
        padding = self._aligner.masker.padding or 0
        shape = (int(n_windows.sum()), width)
        ids = np.full(shape, padding, dtype=np.int64)
        types, attended = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        maskable = np.zeros(shape, dtype=bool)
        where = []
        for start, own, alignment in zip(
            np.cumsum(n_windows) - n_windows, lengths, alignments, strict=True
        ):
            firsts = (start + np.arange(len(own))) * width
            flat = np.concatenate(
                [first + np.arange(length) for first, length in zip(firsts, own, strict=True)]
            )
            ids.flat[flat] = alignment.ids
            types.flat[flat] = alignment.types
            attended.flat[flat] = 1
            maskable.flat[flat] = ~alignment.added
            where.append(flat)
        examples = torch.from_numpy(np.repeat(np.arange(len(lengths)), n_windows)).to(device)
        own_ids = torch.from_numpy(ids).to(device)
        given = MaskerInputs(
            features=(own_ids,),
            inputs=(own_ids,),
            probabilities=probabilities[examples],
            maskable=(torch.from_numpy(maskable).to(device),),
            attention_mask=torch.from_numpy(attended).to(device),
            token_type_ids=torch.from_numpy(types).to(device),
        )
        return given, examples, where

    def check_config(self, config: Mapping[str, Any]) -> None:
        """Checks that a saved masker was one like this.

        Args:
            config: Its :attr:`config`.

        Raises:
            InvalidInputError: It has other tokenizers, another pooling or other windows.
        """
        for name, own in (
            ("tokenizer", self._aligner.model),
            ("masker_tokenizer", self._aligner.masker),
        ):
            if config[name] != own.description:
                raise InvalidInputError(f"{name}: expected that of the saved masker, got another")
        for setting in ("pooling", "max_length"):
            if config[setting] != getattr(self, setting):
                raise InvalidInputError(
                    f"{setting}: expected that of the saved masker, {config[setting]!r}, got "
                    f"{getattr(self, setting)!r}"
                )


def _readable(inputs: MaskerInputs) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Ids (N, L) and which of them can be masked."""
    ids = inputs.inputs[0]
    if (
        len(inputs.inputs) != 1
        or len(inputs.maskable) != 1
        or not is_integral(ids)
        or ids.dim() != 2
        or inputs.maskable[0].shape != ids.shape
    ):
        raise InvalidInputError(
            "masker: an AlignedMasker explains one tensor of ids (N, L), whose text it reads; got "
            f"inputs of {[(str(t.dtype), tuple(t.shape)) for t in inputs.inputs]} with masked "
            f"tokens of shapes {[tuple(t.shape) for t in inputs.maskable]}"
        )
    maskable = inputs.maskable[0]
    attention = inputs.attention_mask
    if attention is not None and attention.shape == ids.shape:
        maskable = maskable & (attention > 0)
    return ids.to(torch.int64).cpu().numpy(), maskable.cpu().numpy()
