"""The text explainers of the packages ``shap`` and ``lime``, on the model's own tokens.

Both packages explain a function of strings, with words of their own making. To be comparable with
the other methods they are given one word for each token that is explained, or for each group of
them, and what they take away becomes the baseline token, at its place. The function that they
explain gives the explained class's probability, or all of them, for texts with some words taken
away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from captum_aml._utils.optional import require
from captum_aml.masking.call import Call
from captum_aml.methods.adapter import (
    CONTRIBUTION,
    Subject,
    classes_of,
    count_groups,
    groups_of,
    maskable_of,
    sampled,
    scoring_method,
)
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
    call: Call
    batch_size: int

    @property
    def n_words(self) -> int:
        """The number of words T."""
        return count_groups(groups_of(self.call))

    def pieces(self, forward_func: ForwardFunc) -> list[str]:
        """The words' characters, see ``text_pieces``; those of a group stand together."""
        maskable = maskable_of(self.call)[0]
        pieces = [""] * self.n_words
        groups = groups_of(self.call)[0, maskable].tolist()
        of_tokens = text_pieces(forward_func, self.call.inputs[0][0, maskable].tolist())
        for group, piece in zip(groups, of_tokens, strict=True):
            pieces[group] += piece
        return pieces

    def __call__(self, kept: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        """Probabilities (M, C) of M variants, each of which keeps some of the words (M, T)."""
        (ids,), (baselines,), groups = self.call.inputs, self.call.baselines, groups_of(self.call)
        parts = []
        for start in range(0, len(kept), self.batch_size):
            rows = torch.from_numpy(kept[start : start + self.batch_size]).to(ids.device)
            variants = torch.where(rows[:, groups[0]] | (groups < 0), ids, baselines)
            args = self.call.repeated_args(len(rows))
            parts.append(self.probabilities(variants, *args).cpu())
        result: npt.NDArray[np.float64] = torch.cat(parts).double().numpy()
        return result

    def scores(self, values: Sequence[float] | npt.NDArray[np.float64]) -> Tensor:
        """Scores (1, L) from those of the T words."""
        of_words = torch.as_tensor(np.asarray(values, dtype=np.float32))
        groups = groups_of(self.call).cpu()
        return of_words[groups] * (groups >= 0)


@dataclass
class TokenPieces:
    """A tokenizer for ``shap.maskers.Text``: it knows one text and its pieces.

    A token's id is its place among the tokens, so that what shap does to the text can be told
    from the ids alone.

    Attributes:
        pieces: The text in pieces, one for each token, with the space that follows it.
    """

    pieces: Sequence[str]

    @property
    def text(self) -> str:
        """The text."""
        return "".join(self.pieces)

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


@scoring_method(
    "shap",
    "the shap package's text explainer: Owen values over a tree of the tokens",
    family="perturbation",
    steps=("evaluations", 500),
    settings=sampled,
    one_by_one=True,
    score=CONTRIBUTION,
    check=lambda _: require("shap", package="shap", feature="method 'shap'", extra="shap"),
)
def _shap(subject: Subject, call: Call) -> Tensor:
    """Partition SHAP: Owen values along a tree of neighbouring tokens.

    ``shap.Explainer`` with ``shap.maskers.Text``, as a user of shap gets it: the tree comes from
    the tokens' characters (pieces of a word first, across punctuation last), and 500 evaluations
    of the model in small batches. With more than some 20 tokens these are not enough for every
    token: what is not taken apart is shared evenly. Making the tree takes time that grows with the
    square of the number of tokens, or of groups.
    """
    import shap

    text = MaskedText(subject.probabilities, call, subject.batch_size)
    target = int(classes_of(call))

    def probability(variants: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        kept = np.stack(list(variants)) != _TAKEN_AWAY
        return text(kept)[:, target]

    if text.n_words == 1:  # no tree
        whole, nothing = probability(np.array([[0], [_TAKEN_AWAY]]))
        return text.scores([whole - nothing])
    tokenizer = TokenPieces(text.pieces(subject.forward_func))
    masker = shap.maskers.Text(tokenizer, mask_token=_TAKEN_AWAY, output_type="token_ids")
    explainer = shap.Explainer(probability, masker, algorithm="partition")
    explanation = explainer([tokenizer.text], max_evals=subject.n_steps, silent=True)
    return text.scores(explanation.values[0])


@scoring_method(
    "lime-text",
    "the lime package's text explainer",
    family="perturbation",
    steps=("samples", 1000),
    settings=sampled,
    stochastic=True,
    one_by_one=True,
    score="weight in a linear model of the probability of the explained class",
    check=lambda _: require("lime", package="lime", feature="method 'lime-text'", extra="lime"),
)
def _lime_text(subject: Subject, call: Call) -> Tensor:
    """LIME as its authors' package does it for texts: ``lime.lime_text.LimeTextExplainer``.

    With lime's own settings but three: 1000 samples instead of 5000; every occurrence of a token,
    or every group of tokens, is a word of its own (``bow=False``), since a transformer reads their
    order; and all get a score instead of the 10 strongest.
    """
    from lime.lime_text import LimeTextExplainer

    text = MaskedText(subject.probabilities, call, subject.batch_size)
    target = int(classes_of(call))
    # lime looks at no characters: each word is its own place, or empty once it is gone.
    words = [f"w{place}" for place in range(text.n_words)]

    def of_strings(variants: list[str]) -> npt.NDArray[np.float64]:
        kept = [[word != "" for word in variant.split(" ")] for variant in variants]
        return text(np.array(kept))

    explainer = LimeTextExplainer(
        bow=False,
        mask_string="",
        feature_selection="none",  # as there is nothing to select
        random_state=subject.seed % 2**32,
    )
    explanation = explainer.explain_instance(
        " ".join(words),
        of_strings,
        labels=(target,),
        num_features=text.n_words,
        num_samples=subject.n_steps,
    )
    found = dict(explanation.as_map()[target])
    return text.scores([found[place] for place in range(text.n_words)])
