"""The text explainers of the packages ``shap`` and ``lime``, on the model's own tokens.

Both packages explain a function of strings, with words of their own making. To be comparable with
the other methods they are given one word for each token that is explained, or for each group of
them, and what they take away becomes the reference token, at its place. The function that they
explain gives the explained class's probability, or all of them, for texts with some words taken
away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from captum_aml._captum import expand_args
from captum_aml._optional import require
from captum_aml.methods._inputs import TokenInputs
from captum_aml.methods._method import ScoringMethod, one_by_one
from captum_aml.methods.registry import MethodOptions, MethodSpec, Setting
from captum_aml.typing import ForwardFunc

_TAKEN_AWAY = -1


@dataclass(frozen=True)
class MaskedText:
    """A text of T words, explained tokens or groups of them, as a function of which are kept.

    Attributes:
        probabilities: Token ids and arguments to class probabilities.
        call: The call, with one example.
        batch_size: The most variants in one pass.
    """

    probabilities: Callable[..., Tensor]
    call: TokenInputs
    batch_size: int

    @property
    def n_words(self) -> int:
        """The number of words T."""
        return self.call.n_groups

    def pieces(self, forward_func: ForwardFunc) -> list[str]:
        """The words' characters, see ``text_pieces``; those of a group stand together."""
        explained = self.call.explained[0]
        pieces = [""] * self.n_words
        groups = self.call.groups[0, explained].tolist()
        of_tokens = text_pieces(forward_func, self.call.ids[0, explained].tolist())
        for group, piece in zip(groups, of_tokens, strict=True):
            pieces[group] += piece
        return pieces

    def __call__(self, kept: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        """Probabilities (M, C) of M variants, each of which keeps some of the words (M, T)."""
        call = self.call
        parts = []
        for start in range(0, len(kept), self.batch_size):
            rows = torch.from_numpy(kept[start : start + self.batch_size]).to(call.ids.device)
            stays = rows[:, call.groups[0]] | ~call.explained
            ids = torch.where(stays, call.ids, call.reference_ids)
            parts.append(self.probabilities(ids, *expand_args(call.args, len(rows))).cpu())
        result: npt.NDArray[np.float64] = torch.cat(parts).double().numpy()
        return result

    def scores(self, values: Sequence[float] | npt.NDArray[np.float64]) -> Tensor:
        """Scores (1, L) from those of the T words."""
        of_words = torch.as_tensor(np.asarray(values, dtype=np.float32))
        return of_words[self.call.groups.cpu()] * self.call.explained.cpu()


@dataclass
class TokenPieces:
    """What ``shap.maskers.Text`` takes as a tokenizer: it knows one text, and how it falls apart.

    A token's id is its place among the tokens, so that what shap does to the text can be told
    from the ids alone.

    Attributes:
        pieces: The text in pieces, one for each token, with the space that follows it.
    """

    pieces: Sequence[str]
    text: str = field(init=False)

    def __post_init__(self) -> None:
        self.text = "".join(self.pieces)

    def __call__(self, text: str, **_: object) -> dict[str, Any]:  # shap's form
        """The ids and character spans of the text, and of nothing for an empty one."""
        ends = np.cumsum([len(piece) for piece in self.pieces]).tolist() if text else []
        spans = list(zip([0, *ends[:-1]], ends, strict=True)) if text else []
        return {"input_ids": list(range(len(ends))), "offset_mapping": spans}


def text_pieces(forward_func: ForwardFunc, ids: Sequence[int]) -> list[str]:
    """The text that token ids stand for, in pieces that end with the space that follows them.

    Args:
        forward_func: What is explained. If it has a transformers tokenizer as its ``tokenizer``,
            as a ``TextClassifier`` has, the pieces are those of the text; else the ids are
            written as words.
        ids: Token ids.
    """
    tokenizer: Any = getattr(forward_func, "tokenizer", None)  # the user's
    if not hasattr(tokenizer, "convert_tokens_to_string"):
        return [f"{token_id} " for token_id in ids]
    tokens = tokenizer.convert_ids_to_tokens(list(ids))
    written = [tokenizer.convert_tokens_to_string([token]) for token in tokens]
    # How a token is written depends on the one before it: "##able" after "un" is "able".
    pieces = written[:1]
    for before, token, alone in zip(tokens, tokens[1:], written, strict=False):
        both = tokenizer.convert_tokens_to_string([before, token])
        pieces.append(both[len(alone) :] if both.startswith(alone) else both)
    spaced = [
        piece.strip() + " " * after[:1].isspace()
        for piece, after in zip(pieces, [*pieces[1:], ""], strict=True)
    ]
    # shap has no place for a token without characters.
    return [piece or "\N{REPLACEMENT CHARACTER}" for piece in spaced]


def _shap(
    forward_func: ForwardFunc, embedding_layer: nn.Module, options: MethodOptions
) -> ScoringMethod:
    """Partition SHAP: Owen values along a tree of neighbouring tokens.

    ``shap.Explainer`` with ``shap.maskers.Text``, as a user of shap gets it: the tree comes from
    the tokens' characters (pieces of a word first, across punctuation last), and 500 evaluations
    of the model in small batches. With more than some 20 tokens these are not enough for every
    token: what is not taken apart is shared evenly. Making the tree takes time that grows with the
    square of the number of tokens, or of groups.
    """
    require("shap", package="shap", feature="method 'shap'", extra="shap")
    import shap

    n_samples = options.n_steps or 500

    def scores(probabilities: Callable[..., Tensor], call: TokenInputs) -> Tensor:
        text = MaskedText(probabilities, call, options.batch_size)
        target = int(call.target)

        def probability(variants: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
            kept = np.stack(list(variants)) != _TAKEN_AWAY
            return text(kept)[:, target]

        if text.n_words == 1:  # no tree
            whole, nothing = probability(np.array([[0], [_TAKEN_AWAY]]))
            return text.scores([whole - nothing])
        tokenizer = TokenPieces(text.pieces(forward_func))
        masker = shap.maskers.Text(tokenizer, mask_token=_TAKEN_AWAY, output_type="token_ids")
        explainer = shap.Explainer(probability, masker, algorithm="partition")
        return text.scores(explainer([tokenizer.text], max_evals=n_samples, silent=True).values[0])

    settings: dict[str, Setting] = {"n_samples": n_samples, "seed": options.seed}
    return ScoringMethod(forward_func, one_by_one(scores, seed=options.seed), settings)


def _lime_text(
    forward_func: ForwardFunc, embedding_layer: nn.Module, options: MethodOptions
) -> ScoringMethod:
    """LIME as its authors' package does it for texts: ``lime.lime_text.LimeTextExplainer``.

    With lime's own settings but three: 1000 samples instead of 5000; every occurrence of a token,
    or every group of tokens, is a word of its own (``bow=False``), since a transformer reads their
    order; and all get a score instead of the 10 strongest.
    """
    require("lime", package="lime", feature="method 'lime-text'", extra="lime")
    from lime.lime_text import LimeTextExplainer

    n_samples = options.n_steps or 1000

    def scores(probabilities: Callable[..., Tensor], call: TokenInputs) -> Tensor:
        text = MaskedText(probabilities, call, options.batch_size)
        target = int(call.target)
        # lime looks at no characters: each word is its own place, or empty once it is gone.
        words = [f"w{place}" for place in range(text.n_words)]

        def of_strings(variants: list[str]) -> npt.NDArray[np.float64]:
            kept = [[word != "" for word in variant.split(" ")] for variant in variants]
            return text(np.array(kept))

        explainer = LimeTextExplainer(
            bow=False,
            mask_string="",
            feature_selection="none",  # as there is nothing to select
            random_state=options.seed % 2**32,
        )
        explanation = explainer.explain_instance(
            " ".join(words),
            of_strings,
            labels=(target,),
            num_features=text.n_words,
            num_samples=n_samples,
        )
        found = dict(explanation.as_map()[target])
        return text.scores([found[place] for place in range(text.n_words)])

    settings: dict[str, Setting] = {"n_samples": n_samples, "seed": options.seed}
    return ScoringMethod(forward_func, one_by_one(scores, seed=options.seed), settings)


METHODS = (
    MethodSpec(
        name="shap",
        summary="the shap package's text explainer: Owen values over a tree of the tokens",
        factory=_shap,
        family="perturbation",
        steps="evaluations (500)",
    ),
    MethodSpec(
        name="lime-text",
        summary="the lime package's text explainer",
        factory=_lime_text,
        family="perturbation",
        stochastic=True,
        steps="samples (1000)",
    ),
)
