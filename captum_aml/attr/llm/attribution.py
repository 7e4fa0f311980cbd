"""AML and LA for language models that write: the parts of a prompt that an answer needs.

Stands beside Captum's ``LLMAttribution`` and ``LLMGradientAttribution`` and is called as they are.
The forward function that is explained is a log-probability of the target, see
:mod:`captum_aml.attr.llm.forward`.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from typing_extensions import Self, Unpack

from captum_aml._captum import (
    BaseLLMAttribution,
    LLMAttribution,
    LLMAttributionResult,
    TextTemplateInput,
    TextTokenInput,
    pretty_tokens,
)
from captum_aml._utils.checks import as_count
from captum_aml._utils.isolation import evaluating, frozen_weights, isolated_rng
from captum_aml._utils.tokenizers import baseline_id
from captum_aml.attr.aml import AMLAttribution
from captum_aml.attr.la import LEARNED, LAAttribution
from captum_aml.attr.llm.checks import check_removal, checked_embedding_layer
from captum_aml.attr.llm.examples import TextInput, example_of, examples_of
from captum_aml.attr.llm.forward import TargetLogProbability
from captum_aml.attr.llm.rows import (
    Example,
    TrainingBatches,
    all_rows,
    collate,
    feature_scores,
    validation_batches,
)
from captum_aml.attr.settings import PretrainedOptions
from captum_aml.exceptions import CheckpointError, InvalidInputError
from captum_aml.maskers import SharedMasker
from captum_aml.maskers.checkpoint import Checkpoint

if TYPE_CHECKING:
    from captum_aml.training import FitCallback
    from captum_aml.training.settings import FitOptions

#: The most rows of a forward call where the caller names no number: of a language model each row
#: takes much memory, and a target of T tokens has 16 (T + 1) of them under a mask.
_MOST_ROWS = 64


class LLMAMLAttribution(BaseLLMAttribution):
    r"""Explains what a causal language model writes by a learned mask over its prompt.

    With :math:`x` the prompt, :math:`y_1, \dots, y_T` the target and :math:`m` the mask, the
    method's terms are read on the probabilities

    .. math::

        p(m) = \exp \Bigl( \frac{1}{T} \sum_t \log p(y_t \mid x[m], y_{<t}) \Bigr)
        \quad \text{and} \quad p_t(m) = p(y_t \mid x[m], y_{<t}),

    the first for the target as a whole (``seq_attr``), the second for each of its tokens
    (``token_attr``); both as the two outcomes :math:`(1 - p, p)`. The first is the geometric mean
    of the tokens' probabilities. Captum reads their product, which is next to nothing for a long
    target: its complement would be certain under every mask, and the inverse term without signal.
    For one token both are the same.

    The target's tokens are never masked, nor is what stands between a template's values, nor what
    the tokenizer adds to it. In a ``TextTokenInput`` every token is a feature unless it is in the
    input's ``skip_tokens``; of a plain string the special tokens are left out. The explanations of
    the target and of its T tokens are made together, as T + 1 rows of one batch, each with logits
    for at most T places. Without a masker each of them is under 16 masks with gradients and 18
    subsets without, of which as many are joined as ``internal_batch_size`` allows.

    Scores are contributions: with :math:`b` the prompt whose features are removed, those of the
    target sum to the mean of :math:`\log p(y_t \mid x, y_{<t}) - \log p(y_t \mid b, y_{<t})`, those
    of a token to its own. Values of a template that have no token but a common one share its score.

    How a mask is applied is the method's own ``perturbation``. Without a masker ``auto`` does both
    of the following where the model takes it, otherwise the first, which can be read as
    ``attr_method.perturbation_``; with one it is the first, as it is where a template's baseline
    strings are of several tokens, which are to be seen in place of the values:

    - ``blend`` mixes the embeddings of the prompt with those of its baseline: of a token input its
      ``baselines``; of a template its baseline strings, cut or filled with the baseline token to
      the number of tokens that are removed. An empty string, Captum's default, is all baseline
      tokens. Positions that equal their baseline are not masked and score 0.
      A baseline token that the model knows to say nothing is better than one it never saw.
    - ``causal-attention`` hides tokens from the attention of what follows. Attention is shared out
      among what is there, so that hiding all tokens alike hides none: something before the target
      has to stay, a template's text or a skipped first token. And a token keeps what it says at its
      own place: the last token of the prompt, whose place predicts the target, cannot be hidden
      from it and scores low. Neither is better everywhere: where words were planted into prompts of
      a small Llama that looks them up, ``blend`` found them more often, above all for the target as
      a whole; for a trained sentiment decoder's label both were about as good.

    Args:
        attr_method: An :class:`~captum_aml.attr.AMLAttribution` or
            :class:`~captum_aml.attr.LAAttribution`, made with the model as its forward function. It
            is copied and read as ``attr_method`` here: ``attr_method.last_terms_`` has the terms
            of the last call, row by row.
        tokenizer: The model's tokenizer. Templates need character offsets, hence a fast one.
        baseline (str, optional): The vocabulary entry that stands for removed tokens of templates
            and plain strings. Default: None, the first that the tokenizer has of: mask, unknown,
            end of sequence, padding

    Raises:
        InvalidInputError: The method, the model or the tokenizer is not as described.

    Examples:
        >>> llm = LLMAMLAttribution(AMLAttribution(model), tokenizer)
        >>> prompt = TextTemplateInput("{} lives in {}", values=["Dave", "Palm Coast, FL"])
        >>> result = llm.attribute(prompt, target="He likes the beach")
        >>> figure, axes = result.plot_token_attr()
    """

    SUPPORTED_METHODS = (AMLAttribution, LAAttribution)
    SUPPORTED_INPUTS = (TextTemplateInput, TextTokenInput)

    def __init__(
        self,
        attr_method: AMLAttribution | LAAttribution,
        tokenizer: Any,
        *,
        baseline: str | None = None,
    ) -> None:
        layer = checked_embedding_layer(attr_method)
        super().__init__(attr_method, tokenizer)
        self.baseline = baseline
        if baseline is not None:
            baseline_id(tokenizer, baseline)
        self.attr_method = copy.copy(attr_method)
        self.attr_method.forward_func = TargetLogProbability(attr_method.forward_func)
        self.attr_method.output = "log_probability"
        self.attr_method.embedding_layers = (layer,)

    def get_name(self) -> str:
        """The method's name in figures and tables: ``LLM AML`` or ``LLM LA``."""
        return f"LLM {self.attr_method.get_name()}"

    @property
    def is_fitted(self) -> bool:
        """Whether there is a fitted masker, so that an explanation is a single pass."""
        return self.attr_method.is_fitted

    def attribute(
        self,
        inp: TextInput,
        target: str | Tensor | None = None,
        num_trials: int = 1,
        gen_args: Mapping[str, Any] | None = None,
        use_cached_outputs: bool = False,
        _inspect_forward: object = None,
        forward_in_tokens: bool = False,
        *,
        n_steps: int | None = None,
        internal_batch_size: int | None = None,
        show_progress: bool = False,
        skip_tokens: object = None,
    ) -> LLMAttributionResult:
        """Scores every feature of a prompt for the target and for each of its tokens.

        Four of Captum's arguments are taken so that its calls run, and change nothing: trials are
        all the same, since nothing is random here, and the target is always read in one pass
        without a key-value cache, which gives the same log-probabilities.

        Args:
            inp (TextTokenInput, TextTemplateInput or str): The prompt.
            target (str or Tensor, optional): The answer to explain, as text or as token ids (T,).
                Default: None, what the model writes
            num_trials (int, optional): See above. Default: 1
            gen_args (dict, optional): Arguments of ``model.generate`` where there is no target.
                Sampling is seeded with the method's seed. Default: None, Captum's: the 25 likeliest
                tokens at most, one after the other
            use_cached_outputs (bool, optional): See above. Default: False
            _inspect_forward (Callable, optional): Likewise. Default: None
            forward_in_tokens (bool, optional): See above. Default: False
            n_steps (int, optional): As for :meth:`captum_aml.attr.AMLAttribution.attribute`.
                Default: 0 with a fitted masker, otherwise 16
            internal_batch_size (int, optional): The most rows of a forward call. Default: None,
                64, or T + 1 where that is more
            show_progress (bool, optional): Whether to show a progress bar. Default: False
            skip_tokens (list, optional): Likewise taken without effect: it was an argument before
                Captum 0.9, and a target's special tokens are left out anyway. Default: None

        Returns:
            LLMAttributionResult: With F features and T target tokens, ``seq_attr`` (F,) and
            ``token_attr`` (T, F), contributions to the log-probabilities above (in [0, 1], higher
            is more important, where the method has ``scores="mask"``),
            ``input_tokens``, ``output_tokens`` and ``output_probs`` (T,).

        Raises:
            InvalidInputError: An argument is not as described; the message names it.
            NoGradientError: The model cannot be differentiated (when tuning).
            NonFiniteError: The model gave NaN or an infinite value.
            NotFittedError: ``n_steps=0``, or ``tune="masker"``, without a fitted masker.
        """
        as_count("num_trials", num_trials, least=1)
        with self._ready():
            example = example_of(self, inp, target, gen_args)
            by_feature, log_probs = self._rows(
                example,
                n_steps=n_steps,
                internal_batch_size=internal_batch_size,
                show_progress=show_progress,
            )
        attributions = example.prompt.inp.format_attr(by_feature)
        return LLMAttributionResult(
            seq_attr=attributions[0],
            token_attr=attributions[1:],
            input_tokens=list(example.prompt.inp.values),
            output_tokens=pretty_tokens(example.target, self.tokenizer),
            output_probs=log_probs[1:].exp(),
            inp=example.prompt.inp,
        )

    @classmethod
    def inside(
        cls,
        llm: LLMAttribution,
        attr_method: AMLAttribution | LAAttribution,
        inp: TextInput,
        target: Tensor,
        **options: Any,
    ) -> Tensor:
        r"""What Captum's ``LLMAttribution`` asks a method of ours for.

        It explains :math:`\log p`, the sum over the target's tokens, or :math:`p`. Contributions
        :math:`\phi` to their mean are turned into its unit, with :math:`T` tokens by
        :math:`T \phi`; and what sums to :math:`s = \log p - \log p_0` by
        :math:`\phi (p - p_0) / s`, which sums to :math:`p - p_0`.

        Args:
            llm: Captum's tool.
            attr_method: The method, a copy of the one that it was made with.
            inp: The prompt, F features.
            target: Token ids, (T,).
            **options: ``n_steps``, ``internal_batch_size`` and ``show_progress``

        Returns:
            Tensor (1 + T, F): scores for the target and for each of its tokens.

        Raises:
            InvalidInputError: As for the constructor and :meth:`attribute`.
        """
        attr_method = copy.copy(attr_method)
        attr_method.forward_func = llm.model
        own = cls(attr_method, llm.tokenizer)
        with own._ready():
            example = example_of(own, inp, target, None)
            scores, log_probs = own._rows(example, **options)
        if not attr_method.multiplies_by_inputs:
            return scores
        scores[0] *= len(target)
        if llm.attr_target == "prob":
            logs, change = log_probs.to(scores.device).double(), scores.double().sum(dim=1)
            logs[0] *= len(target)
            rate = (logs.exp() - (logs - change).exp()) / torch.where(change == 0, 1.0, change)
            scores *= rate.unsqueeze(1)
        return scores

    def _rows(self, example: Example, *, n_steps: int | None, **options: Any) -> tuple[Tensor, ...]:
        """Scores (1 + T, F) and log-probabilities (1 + T,) of a target and of each of its tokens.

        Of the target as a whole they are those of the mean of its tokens' log-probabilities.
        """
        rows = all_rows(example)
        if n_steps != 0 and (n_steps or self.attr_method.default_n_steps):
            check_removal(self.attr_method, [example], self.device)
        if options.get("internal_batch_size") is None:
            options["internal_batch_size"] = max(_MOST_ROWS, len(rows))
        scores = self.attr_method.attribute(
            **collate(rows, self.device), n_steps=n_steps, **options
        )
        assert isinstance(scores, Tensor)
        by_feature = feature_scores(
            example.prompt, scores, total=self.attr_method.scores == "contribution"
        )
        log_probs = self.attr_method.last_outputs_
        assert log_probs is not None
        if len(rows) == 1:  # a single token is the whole target
            return by_feature.repeat(2, 1), log_probs.repeat(2)
        return by_feature, log_probs

    def fit(
        self,
        prompts: Sequence[TextInput],
        targets: Sequence[str | Tensor] | None = None,
        *,
        val_prompts: Sequence[TextInput] | None = None,
        val_targets: Sequence[str | Tensor] | None = None,
        gen_args: Mapping[str, Any] | None = None,
        batch_size: int = 8,
        callbacks: Sequence[FitCallback] = (),
        trackers: Sequence[object] = (),
        show_progress: bool = False,
        **options: Unpack[FitOptions],
    ) -> Self:
        """Trains a masker over prompts, so that an explanation is a single pass (pAML).

        It learns from the whole target of each prompt and, in every epoch, from one token of it
        that is drawn anew. The masker given to the method is the starting point. Without one it is
        a :class:`~captum_aml.maskers.SharedMasker` on the model's hidden states; where the model's
        layers cannot be found, that of ``attr_method.fit``.

        The target can be inferred from the model's hidden states, and from the ids that a
        :class:`~captum_aml.maskers.TransformerMasker` reads. A masker that is shown no more than
        what can be masked (:class:`~captum_aml.maskers.AlignedMasker`,
        :class:`~captum_aml.maskers.EmbeddingMasker`) says much the same for every token of it.

        Args:
            prompts: What ``attribute`` takes as ``inp``.
            targets: A target for each. Default: None, what the model writes
            val_prompts: Prompts for validation. Default: None
            val_targets: Likewise. Default: None
            gen_args: Arguments of ``model.generate`` where there are no targets. Default: None
            batch_size: Prompts in a batch. Default: 8
            callbacks: Instances of :class:`~captum_aml.training.FitCallback`. Default: none
            trackers: As for ``attr_method.fit``. Default: none
            show_progress: Whether to show a progress bar. Default: False
            **options: As for ``attr_method.fit``: the fields of
                :class:`~captum_aml.training.FitSettings`

        Returns:
            This object; ``attr_method`` has ``masker_``, ``history_`` and ``fit_summary_``.

        Raises:
            InvalidInputError: An argument is not as described.
            CheckpointError: ``checkpoint_dir`` holds another run, or another process writes it.
        """
        as_count("batch_size", batch_size, least=1)
        with self._ready():
            training = examples_of(self, "prompts", prompts, targets, gen_args)
            validation = None
            if val_prompts is not None:
                validation = examples_of(self, "val_prompts", val_prompts, val_targets, gen_args)
            check_removal(self.attr_method, [*training, *(validation or ())], self.device)
            method = copy.copy(self.attr_method)
            if method.masker is None:
                method.masker = _shared_masker(self.model, self.device, seed=method.seed)
            method.fit(
                TrainingBatches(training, batch_size=batch_size, device=self.device),
                None
                if validation is None
                else validation_batches(validation, batch_size=batch_size, device=self.device),
                callbacks=callbacks,
                trackers=trackers,
                show_progress=show_progress,
                **options,
            )
        method.masker = self.attr_method.masker
        self.attr_method = method
        return self

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Writes the fitted masker to a folder, as ``attr_method.save_pretrained`` does.

        Raises:
            NotFittedError: There is no fitted masker.
            CheckpointError: The path is a file.
        """
        self.attr_method.save_pretrained(folder)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | os.PathLike[str],
        model: nn.Module,
        tokenizer: Any,
        *,
        baseline: str | None = None,
        **options: Unpack[PretrainedOptions],
    ) -> Self:
        """Loads a masker that ``save_pretrained`` wrote, for AML or LA, whichever it was.

        Args:
            folder: A local folder, or a hub id.
            model: The model that the masker was fitted for.
            tokenizer: Its tokenizer.
            baseline: As for the constructor. Default: None
            **options: As for ``attr_method.from_pretrained``: arguments of the method's constructor

        Raises:
            CheckpointError: The folder is missing, damaged, or of another model, or its masker was
                not fitted for what a model writes.
            InvalidInputError: The model or the tokenizer is not as described.
        """
        checkpoint = Checkpoint.load(folder)
        method_class = LEARNED.get(checkpoint.method)
        if method_class is None or checkpoint.settings.get("output") != "log_probability":
            raise CheckpointError(
                "masker: expected one that LLMAMLAttribution was fitted with, got one for the "
                f"method {checkpoint.method!r} and output {checkpoint.settings.get('output')!r}"
            )
        layer = options.pop("embedding_layer", None)
        llm = cls(method_class(model, embedding_layer=layer), tokenizer, baseline=baseline)
        options["embedding_layer"] = llm.attr_method.embedding_layers
        options["output"] = llm.attr_method.output
        llm.attr_method = method_class.from_pretrained(
            folder, llm.attr_method.forward_func, **options
        )
        return llm

    def attribute_future(self) -> None:
        """Not offered, as by Captum's own."""
        raise NotImplementedError(f"attribute_future is not implemented for {self.get_name()}")

    @contextmanager
    def _ready(self) -> Iterator[None]:
        """The model in evaluation mode, its weights without gradients, and everything back after.

        Without that every layer would keep what its weights' gradients need, which nobody takes.
        """
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            isolated_rng(self.attr_method.seed),
            evaluating(self.model),
            frozen_weights([self.model]),
        ):
            yield


def _shared_masker(model: nn.Module, device: torch.device, *, seed: int) -> SharedMasker | None:
    """A head on the model's hidden states; None where its layers cannot be found."""
    try:
        masker = SharedMasker.from_model(model, n_classes=2, seed=seed)
    except InvalidInputError:
        return None
    return masker.to(device)
