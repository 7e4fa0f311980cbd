"""Text in, explanation out, for people who have a model and texts rather than tensors."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase
from typing_extensions import Self, Unpack

from captum_aml import methods
from captum_aml._utils.checks import as_count
from captum_aml.attr import AMLAttribution, LAAttribution
from captum_aml.attr.la import LEARNED
from captum_aml.exceptions import InvalidInputError, NotFittedError
from captum_aml.maskers.checkpoint import Checkpoint, folder_of
from captum_aml.methods import MaskerLike, TokenMethod
from captum_aml.text._options import refers_to_classes
from captum_aml.text.batches import TextBatches
from captum_aml.text.columns import Column
from captum_aml.text.explaining import StreamExplainer
from captum_aml.text.explanation import Explanation
from captum_aml.text.failing import OnError, check_errors
from captum_aml.text.fitting import load_text_attribution, text_attribution, text_recipe
from captum_aml.text.inputs import TextLike, given_texts
from captum_aml.text.models.base import TextModel
from captum_aml.text.models.sources import ModelLike, prompt_config, text_model
from captum_aml.text.models.targets import TargetsLike, targets_of_texts
from captum_aml.text.models.template import PromptConfig
from captum_aml.text.saved import FILE, check_masker, check_same, read_saved, write_saved
from captum_aml.text.segmentation import Segmenter, Unit
from captum_aml.text.units import TextUnits
from captum_aml.training.recipes import BATCH_SIZE, EPOCHS
from captum_aml.training.settings import FitOptions

_DEFAULT = "aml"
#: What finds the deciding words best where there is no gradient: of the bundled reviews, with the
#: classifier in int8, in 0.975 of 300 (Shapley sampling 0.955, KernelSHAP 0.935, occlusion 0.877 of
#: the first 100; AML of the classifier in float32: 0.967).
_WITHOUT_GRADIENT = "lime"


class TextExplainer:
    """Explains texts with a model of Hugging Face: which tokens decide what it says.

    ``explainer(texts)`` gives an :class:`~captum_aml.text.Explanation` for each text. Texts are
    batched by length, and the model is left as it is.

    What is explained is that which the model is for: the class of a text or of a pair of texts,
    each of several labels, a value; the entities in a text; the answer to a question, or the option
    that is chosen; how similar two texts are; the word at a mask; what a language model writes
    after a prompt or in a chat, or, with ``template`` and ``labels``, how it classifies. See
    ``captum_aml.text.tasks()``; each task has a class, such as
    :class:`~captum_aml.text.TextGenerator`, with its targets and its own options.

    Args:
        model: A model of ``transformers``, or of ``sentence-transformers``; a ``transformers``
            pipeline, whose settings are read, and named by a warning where they are not used; a
            local folder or a hub id; or an instance of a task's class, such as
            ``TokenClassifier(model, tokenizer, aggregation="simple")``. Code that comes with a
            model is never run.
        tokenizer: The model's fast tokenizer. Default: None, the pipeline's, or the one in the
            model's folder.
        method: A name of ``captum_aml.methods.available()``, or an instance of any of Captum's
            attribution classes made for this model. Default: None, "aml"; where no gradient comes
            through the model, as in one of int8 layers, "lime", which is said by a warning.
        task (str, optional): What the model does, where it cannot be told from the model, such as
            "sentence-similarity"; see ``captum_aml.text.tasks()``. Default: None.
        masker (optional): A folder with a fitted masker, or a masker module, for methods that learn
            a mask; ``fit`` makes one. Default: None.
        unit: What has one mask value and one score: "token", "word", "sentence", or
            "sentence+word", sentences first and then words inside the highest of them, see
            :mod:`captum_aml.text.nesting`. It decides what is masked, not only what is shown.
            Default: "token".
        segmenter (callable or str, optional): Finds the words or sentences of a text, as spans in
            order, or names the package that does, such as "jieba", see
            :mod:`captum_aml.text.segmenters`. Default: None, by
            :mod:`captum_aml.text.segmentation`.
        n_sentences (int, optional): The sentences of a text whose words are explained with
            "sentence+word". Default: None, 3.
        n_steps (int, optional): Steps or samples. Default: None, the method's own number.
        template (str, optional): The prompt of a language model, with its slot ``{text}``; of a
            model of natural language inference the hypothesis.
        labels (optional): The label words of a language model, by the names of their classes; or
            labels of one's own for a model of natural language inference.
        baseline (str, optional): The vocabulary entry that stands for a removed token. Default:
            None, the first that the tokenizer has of: mask, unknown, end of sequence, padding.
        max_length (int, optional): Texts are cut to this many tokens. Default: None, to what the
            model takes.
        stride (int, optional): Of classifiers and regression models: longer texts are not cut, but
            read in windows, which share at least this many tokens, and the mean of what the model
            says of them is explained; see :class:`~captum_aml.text.WindowedClassifier`. Default:
            None.
        batch_size: The most texts, or variants of a text, in one pass; where the model reads
            several sequences for a text, the most sequences, or one text. Default: 32.
        seed: Seed of everything random. Default: 0.
        device: Where to load a model to; a model that is given stays where it is. Default: "auto".
        dtype: The precision to load a model in. Default: float32.

    Attributes:
        text_model: The model and its tokenizer as a forward function.
        method_name: The method's name, as explanations record it.
        units: What is masked and scored as one.
        attribution_: The fitted attribution, after ``fit`` or ``from_pretrained``.

    Raises:
        InvalidInputError: An argument is of a wrong kind, or model and tokenizer do not fit.
        TypeError: A keyword is an option of a task's class, which the message names.
        CheckpointError: The masker's folder is damaged, or of another model, prompt or baseline.

    Examples:
        >>> explainer = TextExplainer("path/to/model")
        >>> explanation = explainer("a gripping, beautifully shot film")[0]
        >>> explanation.top(3)
    """

    @refers_to_classes
    def __init__(
        self,
        model: ModelLike,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        method: str | object | None = None,
        task: str | None = None,
        masker: str | os.PathLike[str] | nn.Module | None = None,
        unit: Unit = "token",
        segmenter: Segmenter | str | None = None,
        n_sentences: int | None = None,
        n_steps: int | None = None,
        template: str | None = None,
        labels: Mapping[str, str] | Sequence[str] | None = None,
        baseline: str | None = None,
        max_length: int | None = None,
        stride: int | None = None,
        batch_size: int = 32,
        seed: int = 0,
        device: str | torch.device = "auto",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.text_model: TextModel = text_model(
            model,
            tokenizer,
            task=task,
            prompt=prompt_config(template, labels),
            baseline=baseline,
            max_length=max_length,
            stride=stride,
            device=device,
            dtype=dtype,
        )
        self.units = TextUnits(unit, segmenter, n_sentences)
        self.batch_size = as_count("batch_size", batch_size, least=1)
        self.seed = as_count("seed", seed)
        self.n_steps = n_steps
        self.method: str | object = _DEFAULT if method is None else method
        self.method_name = (
            methods.spec(self.method).name
            if isinstance(self.method, str)
            else type(self.method).__name__
        )
        self._is_chosen = method is not None
        self.masker = masker
        self.attribution_: AMLAttribution | LAAttribution | None = None
        self._loaded: nn.Module | None = None
        self._method = self._made(n_steps)
        if isinstance(masker, str | os.PathLike):
            check_masker(self.text_model, masker)

    def __repr__(self) -> str:
        baseline = self.text_model.baseline
        return (
            f"{type(self).__name__}({type(self.text_model.model).__name__}, "
            f"method={self.method_name!r}, unit={self.units.unit!r}, "
            f"baseline={baseline.token!r} ({baseline.kind}))"
        )

    def __call__(
        self,
        texts: TextLike | Iterable[TextLike],
        text_pair: str | Iterable[str] | None = None,
        *,
        column: Column | None = None,
        target: TargetsLike | Sequence[TargetsLike] | Iterator[TargetsLike] = None,
        n_steps: int | None = None,
        errors: OnError = "raise",
        show_progress: bool = False,
    ) -> list[Explanation]:
        """Explains one text or many.

        Args:
            texts: A string; a pair of strings, as a tuple or as a mapping with ``text`` and
                ``text_pair``, ``question`` and ``context``, or ``premise`` and ``hypothesis``; any
                iterable of texts, whose elements may also be lists of words, or rows with a label;
                or a table: a pandas DataFrame, a ``datasets.Dataset``, or a mapping from names to
                lists. See :func:`captum_aml.text.inputs.given_texts`.
            text_pair (optional): The second text of the pair, or those of as many pairs as there
                are texts. Default: None.
            column (optional): The column of a table or of rows that holds the texts, or the two
                that hold pairs. Default: None, the one whose name is known for it, such as
                ``text``, or the only one with strings.
            target (optional): What to explain: a label or an index; a pair of them for why the
                first and not the second, ``("joy", "fear")``; a list of these for several of one
                text, or "all", where classes are few; of token classification also words with one
                of these each, ``{"Paris": "LOC"}``. For many texts one for all,
                ``itertools.repeat`` of a list for several of all, or a list with one, or a list,
                for each. Default: None, what the task explains: of a classifier the predicted
                class.
            n_steps (int, optional): Steps or samples. Default: None, the constructor's.
            errors: What to do with a text that cannot be explained, such as None: "raise" ends
                there with an error that names its position; "skip" leaves it out, and a warning at
                the end says which were. Default: "raise".
            show_progress: Whether to show a progress bar. Default: False.

        Returns:
            The explanations in the order of the texts: one for each text, or for each of its
            targets; ``row`` is the number of its text.

        Raises:
            InvalidInputError: A text or the target is of a wrong kind, or there is no such column.
            NonFiniteError: The model's output, or a score, is NaN or infinite.
        """
        return list(
            self.stream(
                texts,
                text_pair,
                column=column,
                target=target,
                n_steps=n_steps,
                errors=errors,
                show_progress=show_progress,
            )
        )

    def stream(
        self,
        texts: TextLike | Iterable[TextLike],
        text_pair: str | Iterable[str] | None = None,
        *,
        column: Column | None = None,
        target: TargetsLike | Sequence[TargetsLike] | Iterator[TargetsLike] = None,
        n_steps: int | None = None,
        errors: OnError = "raise",
        show_progress: bool = False,
    ) -> Iterator[Explanation]:
        """The explanations of ``explainer(texts)`` one after the other.

        Memory does not grow with the number of texts: 16 batches are read ahead, sorted by length,
        explained, and given in the order in which they came. Arguments are checked at the call,
        before the first text is read. A text without tokens, such as an empty one, gets an
        explanation without tokens. Before an error all texts in front of the one that failed are
        given.
        """
        check_errors(errors)
        given, one_text = given_texts(texts, text_pair, column=column)
        explain = self._explaining(n_steps)
        targets = targets_of_texts(target, given, self.text_model.check_targets, one_text=one_text)
        return explain(given, targets, errors=errors, progress=show_progress)

    def fit(
        self,
        texts: Iterable[TextLike],
        val_texts: Iterable[TextLike] | None = None,
        *,
        column: Column | None = None,
        masker: str | os.PathLike[str] | nn.Module | None = None,
        perturbation: str | None = None,
        batch_size: int = BATCH_SIZE,
        show_progress: bool = False,
        **options: Unpack[FitOptions],
    ) -> Self:
        """Trains a masker on texts, without labels, so that an explanation is a single pass.

        The default recipe is that of ``captum-aml fit``, which did best in our measurements: the
        masker learns what the removal of random subsets does, through attention where the model
        takes it. ``text_model`` and ``fit`` of the attribution classes offer everything else.

        Args:
            texts: Training texts, which are read once for each epoch: a list, say, or a table, as
                explaining takes them.
            val_texts (optional): Texts by whose loss the best weights are kept. Default: None.
            column (optional): The column with the texts, as for explaining. Default: None.
            masker (optional): ``transformer``, the published one, from the model's own encoder;
                ``shared``, a head on the model's hidden states; the folder of a fitted masker; the
                folder or hub id of an encoder with a tokenizer of its own, whose scores are carried
                over by characters; or a module. Default: None: the loaded or given masker, else
                ``transformer`` for an encoder and ``shared`` for a decoder.
            perturbation (str, optional): How a mask is applied. Default: None, through attention
                where the model takes it, otherwise by blending.
            batch_size: Texts in a batch. Default: 8.
            show_progress: Whether to show a progress bar. Default: False.
            **options: How to fit, such as ``contrasts`` or ``checkpoint_dir``: the fields of
                :class:`~captum_aml.training.FitSettings`, with its defaults but for three:
                ``epochs`` is 6, ``loss`` is ``regression`` for AML and ``objective`` for LA, and
                ``learning_rate`` is 1e-4, or 1e-3 for a head on hidden states, such as ``shared``.

        Returns:
            This object, with ``attribution_``.

        Raises:
            InvalidInputError: The method learns nothing, or an argument is not as described.
            CheckpointError: ``checkpoint_dir`` holds another run.
        """
        if not self._is_chosen:
            self.method = self.method_name = _DEFAULT
        name = self._learned_name()
        batches = partial(TextBatches, self.text_model, seed=self.seed, units=self.units.of_fit)
        training = batches(given_texts(texts, column=column).texts, batch_size=batch_size)
        own = self.masker if isinstance(self.masker, nn.Module) else None
        # A second fit forgets the first; what was loaded, or given, is where fits start.
        start = next((m for m in (masker, self._loaded, own) if m is not None), None)
        recipe = text_recipe(
            self.text_model,
            training.first,
            method=name,
            masker=start,
            perturbation=perturbation,
            seed=self.seed,
        )
        settings: FitOptions = {
            "epochs": EPOCHS,
            "loss": recipe.loss,
            "learning_rate": recipe.learning_rate,
            **options,
        }
        attribution = text_attribution(
            self.text_model,
            name,
            masker=recipe.masker,
            perturbation=recipe.perturbation,
            seed=self.seed,
        )
        validation = None
        if val_texts is not None:
            held_out = given_texts(val_texts, column=column).texts
            validation = batches(held_out, batch_size=32, shuffle=False)
        with self.text_model.evaluating():
            attribution.fit(
                training,
                validation,
                show_progress=show_progress,
                **settings,
            )
        self.attribution_ = attribution
        self._method = self._made(self.n_steps)
        return self

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Writes the fitted masker and how texts are explained, as safetensors and JSON.

        Raises:
            NotFittedError: There is no fitted masker.
            CheckpointError: The path is a file.
        """
        if self.attribution_ is None:
            raise NotFittedError("TextExplainer: nothing to save yet; call fit first")
        self.attribution_.save_pretrained(folder)
        write_saved(
            Path(folder),
            self.text_model,
            method=self.method_name,
            units=self.units,
            n_steps=self.n_steps,
        )

    @classmethod
    def from_pretrained(
        cls,
        folder: str | os.PathLike[str],
        model: ModelLike,
        tokenizer: PreTrainedTokenizerBase | None = None,
        *,
        task: str | None = None,
        method: str | None = None,
        unit: Unit | None = None,
        segmenter: Segmenter | str | None = None,
        n_sentences: int | None = None,
        n_steps: int | None = None,
        batch_size: int = 32,
        seed: int = 0,
        device: str | torch.device = "auto",
        dtype: torch.dtype = torch.float32,
    ) -> Self:
        """Loads what ``save_pretrained`` wrote, from a folder or a hub repository.

        Also a folder that an attribution class or ``captum-aml fit`` wrote; texts are then
        explained as usual. All arguments but the first are those of the class; the model is that
        which the masker was fitted for, and where ``task``, ``method``, ``unit``, ``n_sentences``
        or ``n_steps`` is None, it is as saved. Template, labels, ``baseline`` and ``max_length``
        are always the saved ones, since the masker was fitted with them. No segmenter and no
        other option of a task's class is saved: give such a class instead of the model.

        Raises:
            CheckpointError: The folder is missing, damaged, or of another model, or of another
                task, prompt or baseline token.
            InvalidInputError: See the class.
        """
        place = folder_of(folder, FILE)
        saved = read_saved(place)
        prompt = saved.get("prompt")
        if isinstance(model, TextModel):
            model = text_model(model, tokenizer, task=task)
        else:
            model = text_model(
                model,
                tokenizer,
                task=saved.get("task") if task is None else task,
                prompt=None if prompt is None else PromptConfig.from_dict(prompt),
                baseline=saved.get("baseline"),
                max_length=saved.get("max_length"),
                device=device,
                dtype=dtype,
            )
        check_same(model, saved)
        name = method or saved.get("method") or Checkpoint.load(place).method
        unit = unit or saved.get("unit", "token")
        if n_sentences is None and unit == saved.get("unit"):
            n_sentences = saved.get("n_sentences")
        explainer = cls(
            model,
            method=name,
            masker=None if methods.spec(name).requires_masker is False else place,
            unit=unit,
            segmenter=segmenter,
            n_sentences=n_sentences,
            batch_size=batch_size,
            seed=seed,
        )
        explainer.n_steps = saved.get("n_steps") if n_steps is None else n_steps
        learned = explainer._learned_name()
        with explainer.text_model.evaluating():
            attribution = load_text_attribution(
                place, explainer.text_model, learned, seed=explainer.seed
            )
        explainer.attribution_, explainer._loaded = attribution, attribution.masker_
        explainer._method = explainer._made(explainer.n_steps)
        return explainer

    def _explaining(self, n_steps: int | None, n_texts: int | None = None) -> StreamExplainer:
        """What explains texts with these steps or samples; None for the constructor's.

        ``n_texts`` is the most texts, or variants of a text, in a pass; None for ``batch_size``.
        """
        if n_steps is None and n_texts is None:
            method = self._method
        else:
            method = self._made(self.n_steps if n_steps is None else n_steps, n_texts)
        entry = methods.spec(self.method) if isinstance(self.method, str) else None
        may_change = not self._is_chosen and self.method == _DEFAULT and self._fitted is None
        return StreamExplainer(
            self.text_model,
            method,
            name=self.method_name,
            meaning=methods.score_meaning(method, entry),
            units=self.units,
            batch_size=self.batch_size,
            narrower=partial(self._explaining, n_steps),
            without_gradient=self._without_gradient if may_change else None,
        )

    def _without_gradient(self) -> StreamExplainer:
        """Goes over to the method for models without a gradient, with its own number of steps."""
        warnings.warn(
            f"method: no gradient comes through {type(self.text_model.model).__name__}, so "
            f"{_WITHOUT_GRADIENT!r} explains it, by {methods.spec(_WITHOUT_GRADIENT).steps}; "
            "give method= for another one",
            stacklevel=2,
        )
        self.n_steps, self.method = None, _WITHOUT_GRADIENT
        self.method_name, self._method = _WITHOUT_GRADIENT, self._made(None)
        return self._explaining(None)

    def _made(self, n_steps: int | None, n_texts: int | None = None) -> TokenMethod:
        if not isinstance(self.method, str):
            return methods.AttributionMethod(
                self.method,
                self.text_model,
                n_steps=n_steps,
                seed=self.seed,
                batch_size=n_texts or self.batch_size,
            )
        return methods.create(
            self.method,
            self.text_model,
            self.text_model.embedding_layer,
            n_steps=n_steps,
            seed=self.seed,
            batch_size=n_texts or self.batch_size,
            masker=self._fitted,
            output=self.text_model.method_output,
        )

    @property
    def _fitted(self) -> MaskerLike | None:
        return self.masker if self.attribution_ is None else self.attribution_

    def _learned_name(self) -> str:
        """``aml`` or ``la``."""
        name = self.method_name.split("-")[0]
        if not isinstance(self.method, str) or name not in LEARNED:
            raise InvalidInputError(
                f"method: {self.method_name!r} learns nothing from texts; fit needs method='aml' "
                "or 'la' (an attribution instance has a fit of its own)"
            )
        return name
