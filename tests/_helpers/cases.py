"""Cases of the shared checks: a forward function, its inputs and how they are explained.

Half of the models are Captum's own toy models, the other half small ones whose shape or output is
missing there. Every case is built anew for each check, with weights from a seed of its own, and has
at least four examples that differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from captum.testing.helpers.basic_models import (
    BasicEmbeddingModel,
    BasicLinearModel2,
    BasicModel6_MultiTensor,
    BasicModel_ConvNet,
    BasicModel_MultiLayer,
    BasicModel_MultiLayer_MultiInput,
    BasicModel_MultiLayer_TrueMultiInput,
    ReLULinearModel,
)
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

PAD, MASK = 0, 1


@dataclass(frozen=True)
class Case:
    """One forward function and one call to explain it.

    Attributes:
        forward: The forward function.
        inputs: Its inputs, as they are given to ``attribute``.
        output_shape: The shape of its output for one example.
        layer: The layer that the layer variants explain.
        target: The explained output of all examples.
        baselines: The baselines.
        args: Further arguments of the forward function.
        embedding_layer: What embeds the inputs that are ids.
        tensor_forward: The same as a function that returns a tensor, for Captum's own methods.
        padded: The same call with this many padding positions more at the end of each example.
    """

    forward: Callable[..., Any]
    inputs: Any
    output_shape: tuple[int, ...]
    layer: Any = None
    target: Any = None
    baselines: Any = None
    args: tuple[Any, ...] = ()
    embedding_layer: Any = None
    tensor_forward: Callable[..., Tensor] | None = None
    padded: Callable[[int], Case] | None = None

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The inputs as a tuple."""
        return self.inputs if isinstance(self.inputs, tuple) else (self.inputs,)

    @property
    def n_examples(self) -> int:
        """The number of examples."""
        return len(self.tensors[0])

    @property
    def is_float(self) -> bool:
        """Whether no input holds ids."""
        return all(t.is_floating_point() for t in self.tensors)

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        """The modules whose state must not change."""
        layers = self.layer if isinstance(self.layer, list) else [self.layer]
        return tuple(m for m in (self.forward, *layers) if isinstance(m, nn.Module))

    @property
    def call(self) -> dict[str, Any]:
        """The keyword arguments of ``attribute`` but for the inputs."""
        return {
            "baselines": self.baselines,
            "target": self.target,
            "additional_forward_args": self.args or None,
        }

    @property
    def baseline_tensors(self) -> tuple[Tensor, ...]:
        """The baselines spelled out: a tensor for each input, of its shape."""
        given = self.baselines
        if given is None:
            given = (0,) * len(self.tensors)
        given = given if isinstance(given, tuple) else (given,)
        return tuple(
            (b if isinstance(b, Tensor) else torch.tensor(b)).to(x).expand_as(x)
            for b, x in zip(given, self.tensors, strict=True)
        )

    def rows(self, index: Sequence[int]) -> Case:
        """The same call for some of the examples, in this order."""
        n = self.n_examples

        def cut(value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(cut(v) for v in value)
            if isinstance(value, Tensor) and value.dim() > 0 and len(value) == n:
                return value[list(index)]
            return value

        target = self.target
        if isinstance(target, list):
            target = [target[i] for i in index]
        elif isinstance(target, Tensor) and target.numel() > 1:
            target = target[list(index)]
        return replace(
            self,
            inputs=cut(self.inputs),
            baselines=cut(self.baselines),
            args=cut(self.args),
            target=target,
        )

    def outputs(self, inputs: Sequence[Tensor]) -> Tensor:
        """The forward function's tensor for other inputs."""
        forward = self.tensor_forward or self.forward
        with torch.no_grad():
            return forward(*inputs, *self.args)


@dataclass(frozen=True)
class CaseSpec:
    """How to build a case, and what is known of it beforehand.

    Attributes:
        build: Builds it.
        tags: ``layer`` (there are layers to explain), ``float`` or ``ids`` inputs, ``classes`` (a
            distribution is read from the output), ``multidim`` (an output of more than two
            dimensions), ``sequence`` (inputs are (N, L, D)), ``padding`` (it can be padded),
            ``tuple`` (several inputs), ``traceable`` (all arguments are tensors), ``core`` (one of
            its kind: slow checks run over these).
    """

    build: Callable[[], Case]
    tags: frozenset[str]


class TokenClassifier(nn.Module):
    """Classes voted for by tokens, each in proportion to how salient it is among its neighbours.

    The logit of class c is the sum over the attended positions of a softmax over saliences, times
    the position's c-th vote. Padding that is not attended to has exactly no influence.
    """

    def __init__(self, n_tokens: int = 20, n_channels: int = 5, n_classes: int = 3) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_tokens, n_channels, padding_idx=PAD)
        self.project = nn.Linear(n_channels, n_channels)
        self.salience = nn.Linear(n_channels, 1)
        self.votes = nn.Linear(n_channels, n_classes)
        nn.init.normal_(self.votes.weight, std=2.0)

    def head(self, embeddings: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits (N, C) of embeddings (N, L, D)."""
        hidden = torch.tanh(self.project(embeddings))
        salience = self.salience(hidden).squeeze(-1).masked_fill(attention_mask == 0, -1e9)
        return (salience.softmax(-1).unsqueeze(-1) * self.votes(hidden)).sum(1)

    def forward(self, ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits (N, C) of ids (N, L)."""
        return self.head(self.embedding(ids), attention_mask)


class SequenceClassifier(TokenClassifier):
    """The same for embeddings."""

    def forward(self, embeddings: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits (N, C) of embeddings (N, L, D)."""
        return self.head(embeddings, attention_mask)


class LogProbabilities(SequenceClassifier):
    """The same as log-probabilities."""

    def forward(self, embeddings: Tensor, attention_mask: Tensor) -> Tensor:
        """Log-probabilities (N, C) of embeddings (N, L, D)."""
        return super().forward(embeddings, attention_mask).log_softmax(-1)


class ScalarRegressor(TokenClassifier):
    """One number for each example, without a dimension of its own."""

    def forward(self, ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Values (N,) of ids (N, L)."""
        return super().forward(ids, attention_mask)[:, 0].exp()


class Tagger(TokenClassifier):
    """Classes for each position, mixed with those of its neighbours."""

    def forward(self, embeddings: Tensor) -> Tensor:
        """Logits (N, L, C) of embeddings (N, L, D)."""
        votes = self.votes(torch.tanh(self.project(embeddings)))
        return votes + 0.5 * votes.roll(1, dims=1)


class ImageClassifier(nn.Module):
    """Two classes for images (N, 3, 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.out = nn.Linear(4 * 36, 2)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, 2)."""
        return self.out(torch.tanh(self.conv(images)).flatten(1))


class KeywordBlock(nn.Module):
    """A layer with a keyword argument that is a tensor too."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor, *, scale: Tensor) -> Tensor:
        """A scaled linear map (N, 3)."""
        return self.linear(x) * scale


class KeywordModel(nn.Module):
    """Calls a layer with a keyword argument, as encoders call theirs with an attention mask."""

    def __init__(self) -> None:
        super().__init__()
        self.block = KeywordBlock()
        self.out = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 2) of (N, 3)."""
        return self.out(torch.tanh(self.block(x, scale=x.abs().sum(1, keepdim=True))))


def _seeded(build: Callable[..., Case]) -> Callable[..., Case]:
    def built(*args: Any) -> Case:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(20)
            return build(*args)

    return built


def random_ids(n: int, length: int, *, low: int = 2, high: int = 20) -> Tensor:
    """Ids (n, length) from ``low`` to ``high - 1``."""
    return torch.randint(low, high, (n, length))


@_seeded
def multi_layer() -> Case:
    """Captum's BasicModel_MultiLayer, with a tensor and a flag as further arguments."""
    model = BasicModel_MultiLayer()
    nn.init.normal_(model.linear1.weight)
    nn.init.normal_(model.linear2.weight)
    inputs = torch.randn(5, 3)
    # One element equals its baseline: it must score 0.
    inputs[1, 2] = 0.0
    return Case(model, inputs, (2,), layer=model.linear1, target=1, args=(torch.rand(5, 3), False))


@_seeded
def multi_dim_output() -> Case:
    """Captum's BasicModel_MultiLayer with an output (N, 2, 2, 2)."""
    model = BasicModel_MultiLayer()
    nn.init.normal_(model.linear2.weight)
    return Case(
        model,
        torch.randn(4, 3) * 5,
        (2, 2, 2),
        layer=model.linear0,
        target=(1, 0, 1),
        baselines=torch.full((1, 3), 0.5),
        args=(None, True),
    )


@_seeded
def tuple_layer() -> Case:
    """Captum's BasicModel_MultiLayer, whose multi_relu takes and gives two tensors."""
    model = BasicModel_MultiLayer(multi_input_module=True)
    nn.init.normal_(model.linear1.weight)
    nn.init.normal_(model.linear1_alt.weight)
    nn.init.normal_(model.linear2.weight)
    return Case(model, torch.randn(4, 3), (2,), layer=model.multi_relu, target=0)


@_seeded
def multi_input() -> Case:
    """Captum's BasicModel_MultiLayer_MultiInput: three inputs and a number."""
    model = BasicModel_MultiLayer_MultiInput()
    nn.init.normal_(model.model.linear1.weight)
    nn.init.normal_(model.model.linear2.weight)
    return Case(
        model,
        tuple(torch.randn(4, 3) for _ in range(3)),
        (2,),
        layer=model.model.linear1,
        target=[0, 1, 1, 0],
        baselines=(torch.zeros(4, 3), 0.25, torch.full((1, 3), -0.5)),
        args=(2,),
    )


@_seeded
def true_multi_input() -> Case:
    """Captum's BasicModel_MultiLayer_TrueMultiInput: inputs that take different ways."""
    model = BasicModel_MultiLayer_TrueMultiInput()
    nn.init.normal_(model.m1.linear2.weight)
    nn.init.normal_(model.m234.model.linear2.weight)
    return Case(
        model,
        tuple(torch.randn(4, 3) for _ in range(4)),
        (2,),
        layer=model.m234.model.relu,
        target=torch.tensor([1, 0, 0, 1]),
    )


@_seeded
def embedding_model() -> Case:
    """Captum's BasicEmbeddingModel: two inputs of ids and a third that is not explained."""
    model = BasicEmbeddingModel(embedding_dim=6, hidden_dim=8, nested_second_embedding=True)
    nn.init.normal_(model.linear1.weight)
    ids = tuple(random_ids(4, 5, high=30) for _ in range(3))
    # One id of the first input equals its baseline: it must score 0.
    ids[0][2, 1] = MASK
    return Case(
        model,
        ids[:2],
        (1,),
        layer=model.embedding1,
        baselines=(MASK, torch.full((1, 5), MASK)),
        args=(ids[2],),
        embedding_layer=(model.embedding1, model.embedding2.inner_embedding),
    )


@_seeded
def conv_net() -> Case:
    """Captum's BasicModel_ConvNet: probabilities of ten classes for images."""
    model = BasicModel_ConvNet()
    nn.init.normal_(model.fc1.weight)
    nn.init.normal_(model.fc2.weight)
    return Case(model, torch.rand(4, 1, 10, 10) * 4, (10,), layer=model.conv1, target=3)


@_seeded
def linear_model() -> Case:
    """Captum's BasicLinearModel2: three classes, linear in the inputs."""
    model = BasicLinearModel2(4, 3)
    inputs = torch.randn(4, 4)
    return Case(model, inputs, (3,), layer=model.linear, target=2, baselines=0.1)


@_seeded
def relu_linear() -> Case:
    """Captum's ReLULinearModel: one value for each example, in a dimension of its own."""
    model = ReLULinearModel()
    return Case(
        model,
        (torch.rand(4, 3) + 0.5, torch.rand(4, 3) + 0.5),
        (1,),
        layer=model.l1,
        baselines=(0, torch.zeros(4, 3)),
        args=(2,),
    )


@_seeded
def multi_tensor() -> Case:
    """Captum's BasicModel6_MultiTensor: one value for each example, and no layer."""
    return Case(BasicModel6_MultiTensor(), (torch.rand(4, 3) / 2, torch.rand(4, 3) / 2), ())


def _lengths(n: int, length: int) -> Tensor:
    """An attention mask (n, length): the examples are of different lengths."""
    lengths = torch.tensor([length - i % 3 for i in range(n)])
    return (torch.arange(length) < lengths.unsqueeze(1)).long()


@_seeded
def text(extra: int = 0) -> Case:
    """Ids with an embedding layer, of different lengths; the first token is not maskable."""
    model = TokenClassifier()
    attention = _lengths(4, 7)
    ids = random_ids(4, 7) * attention
    reference = torch.full_like(ids, MASK) * attention
    reference[:, 0] = ids[:, 0]
    attention, ids, reference = (
        nn.functional.pad(t, (0, extra), value=PAD) for t in (attention, ids, reference)
    )
    return Case(
        model,
        ids,
        (3,),
        layer=model.embedding,
        target=1,
        baselines=reference,
        args=(attention,),
        embedding_layer=model.embedding,
        padded=text,
    )


@_seeded
def sequence(extra: int = 0) -> Case:
    """Embeddings (N, L, D) of different lengths; what is padded equals the baseline."""
    model = SequenceClassifier()
    attention = _lengths(4, 6)
    embeddings = torch.randn(4, 6, 5) * attention.unsqueeze(-1)
    return Case(
        model,
        nn.functional.pad(embeddings, (0, 0, 0, extra)),
        (3,),
        layer=model.project,
        target=2,
        args=(nn.functional.pad(attention, (0, extra)),),
        padded=sequence,
    )


@_seeded
def log_probabilities() -> Case:
    """Log-probabilities of three classes."""
    model = LogProbabilities()
    return Case(
        model,
        torch.randn(4, 6, 5),
        (3,),
        layer=model.project,
        target=[2, 0, 1, 0],
        args=(torch.ones(4, 6),),
    )


@_seeded
def scalar() -> Case:
    """Ids, and one value for each example, which has no dimension of its own."""
    model = ScalarRegressor()
    return Case(
        model,
        random_ids(4, 6),
        (),
        layer=model.embedding,
        baselines=MASK,
        args=(torch.ones(4, 6),),
        embedding_layer=model.embedding,
    )


@_seeded
def tagger() -> Case:
    """An output (N, L, C), of which a position and a class are explained."""
    model = Tagger()
    return Case(
        model,
        torch.randn(4, 6, 5),
        (6, 3),
        layer=model.project,
        target=[(0, 1), (3, 2), (5, 0), (2, 2)],
    )


@_seeded
def double() -> Case:
    """Double precision."""
    model = SequenceClassifier().double()
    return Case(
        model,
        torch.randn(4, 6, 5, dtype=torch.float64),
        (3,),
        layer=model.project,
        target=0,
        baselines=torch.randn(1, 6, 5, dtype=torch.float64),
        args=(torch.ones(4, 6),),
    )


@_seeded
def bfloat16() -> Case:
    """A model and inputs in bfloat16."""
    model = BasicLinearModel2(4, 3).bfloat16()
    inputs = torch.randn(4, 4).bfloat16()
    return Case(model, inputs, (3,), layer=model.linear, target=2)


@_seeded
def images() -> Case:
    """Images of three channels."""
    model = ImageClassifier()
    return Case(model, torch.rand(4, 3, 8, 8), (2,), layer=model.conv, target=1)


@_seeded
def keyword_layer() -> Case:
    """A layer that is called with a keyword argument which is a tensor."""
    model = KeywordModel()
    return Case(model, torch.randn(4, 3), (2,), layer=model.block, target=1)


class Logits(nn.Module):
    """A Hugging Face classifier that returns its logits as a tensor."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits (N, C) of ids (N, L)."""
        return self.model(ids, attention_mask=attention_mask).logits


def bert_model(*, n_labels: int = 2, vocab_size: int = 20) -> BertForSequenceClassification:
    """A BERT of a few thousand weights, from the current random state, in evaluation mode."""
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=vocab_size,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=16,
            num_labels=n_labels,
            # Drawn large enough that predictions differ between texts.
            initializer_range=0.5,
        )
    ).eval()


@_seeded
def bert(extra: int = 0) -> Case:
    """A Hugging Face model given as it is: it returns an object, and knows its embeddings."""
    model = bert_model()
    attention = _lengths(4, 7)
    ids = random_ids(4, 7) * attention
    reference = torch.full_like(ids, MASK) * attention
    reference[:, 0] = ids[:, 0]
    attention, ids, reference = (
        nn.functional.pad(t, (0, extra), value=PAD) for t in (attention, ids, reference)
    )
    return Case(
        model,
        ids,
        (2,),
        layer=model.bert.embeddings,
        target=[1, 0, 0, 1],
        baselines=reference,
        args=(attention,),
        tensor_forward=Logits(model),
        padded=bert,
    )


def _spec(build: Callable[[], Case], tags: str) -> CaseSpec:
    return CaseSpec(build, frozenset(tags.split()))


CASES: dict[str, CaseSpec] = {
    "multi_layer": _spec(multi_layer, "layer float classes core"),
    "multi_dim_output": _spec(multi_dim_output, "layer float classes multidim core"),
    "tuple_layer": _spec(tuple_layer, "layer float classes traceable"),
    "multi_input": _spec(multi_input, "layer float classes tuple core"),
    "true_multi_input": _spec(true_multi_input, "layer float classes tuple traceable"),
    "embedding_model": _spec(embedding_model, "layer ids tuple traceable core"),
    "conv_net": _spec(conv_net, "layer float classes traceable"),
    "linear_model": _spec(linear_model, "layer float classes traceable"),
    "relu_linear": _spec(relu_linear, "layer float tuple core"),
    "multi_tensor": _spec(multi_tensor, "float tuple traceable core"),
    "text": _spec(text, "layer ids classes padding traceable core"),
    "sequence": _spec(sequence, "layer float classes sequence padding traceable core"),
    "log_probabilities": _spec(log_probabilities, "layer float classes sequence traceable"),
    "scalar": _spec(scalar, "layer ids traceable core"),
    "tagger": _spec(tagger, "layer float classes multidim sequence traceable core"),
    "double": _spec(double, "layer float classes sequence traceable"),
    "images": _spec(images, "layer float classes traceable"),
    "bert": _spec(bert, "layer ids classes padding traceable"),
}
