"""Captum's tutorials, small: what they do with Integrated Gradients, our classes do in its place.

Each test runs with Captum's class and with ours, which differ in the name alone. The models have
planted answers, so that both are held to what is right rather than to each other.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from captum.attr import (
    FeatureAblation,
    GradientShap,
    IntegratedGradients,
    LayerConductance,
    LayerIntegratedGradients,
    LLMAttribution,
    LLMAttributionResult,
    LLMGradientAttribution,
    NeuronConductance,
    NoiseTunnel,
    ShapleyValues,
    TextTemplateInput,
    TextTokenInput,
    TokenReferenceBase,
)
from captum.attr import visualization as viz
from captum.attr._utils.input_layer_wrapper import ModelInputWrapper
from scipy.stats import spearmanr
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    BertConfig,
    BertForQuestionAnswering,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from captum_aml import AMLAttribution, LayerAMLAttribution

INPUT_METHODS = pytest.mark.parametrize("method", [IntegratedGradients, AMLAttribution])
LAYER_METHODS = pytest.mark.parametrize("method", [LayerIntegratedGradients, LayerAMLAttribution])


def rank_correlation(a: Tensor, b: Tensor) -> float:
    return float(spearmanr(a.detach().numpy(), b.detach().numpy()).statistic)


def median_rank_correlation(a: Tensor, b: Tensor) -> float:
    """Of the scores of each example with others of it."""
    rows = [rank_correlation(*pair) for pair in zip(a, b, strict=True)]
    return float(torch.tensor(rows).median())


# --- SQuAD: where an answer starts and ends -------------------------------------------------------

QUESTION = ["who", "won", "the", "cup"]
ANSWERED = ["last", "year", "a", "small", "team", "from", "the", "north", "won", "it"]
#: The words at which the answer starts and ends, wherever they stand.
STARTS, ENDS = "small", "north"
SQUAD_WORDS = ["[PAD]", "[CLS]", "[SEP]", *dict.fromkeys(QUESTION + ANSWERED)]
SQUAD_TOKENS = ["[CLS]", *QUESTION, "[SEP]", *ANSWERED, "[SEP]"]


@pytest.fixture(scope="module")
def squad() -> BertForQuestionAnswering:
    """Two words have a direction of their own in the embeddings, which the head reads."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(SQUAD_WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
    )
    model = BertForQuestionAnswering(config).eval()
    directions = torch.linalg.qr(torch.randn(32, 2))[0].T
    with torch.no_grad():
        words = model.bert.embeddings.word_embeddings.weight
        for word, direction in zip((STARTS, ENDS), directions, strict=True):
            words[SQUAD_WORDS.index(word)] += 0.5 * direction
        model.qa_outputs.weight.copy_(directions)
    return model


def squad_pairs() -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Ids, types and positions of the text, and of one without its words."""
    special = ("[CLS]", "[SEP]")
    ids = torch.tensor([[SQUAD_WORDS.index(word) for word in SQUAD_TOKENS]])
    pads = torch.tensor([[SQUAD_WORDS.index(w) if w in special else 0 for w in SQUAD_TOKENS]])
    types = (torch.arange(len(SQUAD_TOKENS)) > len(QUESTION) + 1).long().unsqueeze(0)
    positions = torch.arange(len(SQUAD_TOKENS)).unsqueeze(0)
    zeros = torch.zeros_like(ids)
    return (ids, types, positions), (pads, zeros, zeros)


@LAYER_METHODS
@pytest.mark.parametrize(("which", "word"), [(0, STARTS), (1, ENDS)])
def test_squad(squad: BertForQuestionAnswering, method: type[Any], which: int, word: str) -> None:
    def best_logit(
        ids: Tensor,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        which: int = 0,
    ) -> Tensor:
        found = squad(
            ids,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            attention_mask=attention_mask,
        )
        return (found.start_logits, found.end_logits)[which].max(1).values

    inputs, baselines = squad_pairs()
    attention_mask = torch.ones_like(inputs[0])
    rest = (attention_mask, which)
    with torch.no_grad():
        explained = best_logit(*inputs, *rest)
        without_words = explained - best_logit(baselines[0], *inputs[1:], *rest)
        without_all = explained - best_logit(*baselines, *rest)
    place = SQUAD_TOKENS.index(word)
    embeddings = squad.bert.embeddings

    # The sum of all embeddings.
    attributions, delta = method(best_logit, embeddings).attribute(
        inputs=inputs[0],
        baselines=baselines[0],
        additional_forward_args=(*inputs[1:], *rest),
        return_convergence_delta=True,
        n_steps=50,
        internal_batch_size=10,
    )
    assert attributions.shape == (1, len(SQUAD_TOKENS), 32)
    scores = attributions.sum(dim=-1)
    assert int(scores.argmax()) == place
    assert not bool(scores[inputs[0] == baselines[0]].any())
    torch.testing.assert_close(scores.sum(dim=1), without_words, rtol=0.05, atol=0)
    torch.testing.assert_close(delta, scores.sum(dim=1) - without_words, rtol=0, atol=1e-4)

    # Each of them, in one call.
    layers = [
        embeddings.word_embeddings,
        embeddings.token_type_embeddings,
        embeddings.position_embeddings,
    ]
    attributions, delta = method(best_logit, layers).attribute(
        inputs=inputs,
        baselines=baselines,
        additional_forward_args=rest,
        return_convergence_delta=True,
        n_steps=50,
        internal_batch_size=10,
    )
    scores = torch.cat([scores.sum(dim=-1) for scores in attributions])
    assert divmod(int(scores.argmax()), len(SQUAD_TOKENS)) == (0, place)
    same = torch.cat([x == b for x, b in zip(inputs, baselines, strict=True)])
    assert not bool(scores[same].any())
    total = scores.sum().unsqueeze(0)
    torch.testing.assert_close(total, without_all, rtol=0.05, atol=0)
    torch.testing.assert_close(delta, total - without_all, rtol=0, atol=1e-4)


# --- IMDB: a sigmoid of one value -----------------------------------------------------------------

GOOD, BAD = ("superb", "lovely"), ("dreadful", "tedious")
NEUTRAL = ("it", "was", "a", "play", "the", "cast", "and", "music", "were", ".", "!")
IMDB_WORDS = ["<pad>", *NEUTRAL, *GOOD, *BAD]
REVIEWS = [
    ("it was a superb play !", "superb", 1),
    ("the lovely cast and the music", "lovely", 1),
    ("a dreadful play .", "dreadful", 0),
    ("the cast and the music were tedious", "tedious", 0),
]


class TextCNN(nn.Module):
    """Filters over two and three words, the most of each, one logit (N, 1).

    One filter of each width looks for good words, one for bad ones, and two for others.
    """

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(len(IMDB_WORDS), 8, padding_idx=0)
        self.convolutions = nn.ModuleList([nn.Conv1d(8, 4, width) for width in (2, 3)])
        self.head = nn.Linear(8, 1)
        with torch.no_grad():
            self.embedding.weight[:, :2] = 0.0
            for word in GOOD + BAD:
                self.embedding.weight[IMDB_WORDS.index(word), int(word in BAD)] = 3.0
            for convolution in self.convolutions:
                convolution.weight.mul_(0.1)
                convolution.weight[0, 0] = convolution.weight[1, 1] = 0.5
            self.head.weight.copy_(torch.tensor([[1.0, -1.0, 0.1, -0.1] * 2]))

    def forward(self, ids: Tensor) -> Tensor:
        channels_first = self.embedding(ids).transpose(1, 2)
        found = [convolution(channels_first).relu().amax(-1) for convolution in self.convolutions]
        return self.head(torch.cat(found, dim=1))


@LAYER_METHODS
@pytest.mark.parametrize("squashed", [False, True])
def test_imdb(method: type[Any], squashed: bool) -> None:
    pytest.importorskip("IPython", reason="Captum shows texts in notebooks")
    model = TextCNN().eval()

    def probability(ids: Tensor) -> Tensor:
        return torch.sigmoid(model(ids))

    forward = probability if squashed else model
    attribution = method(forward, model.embedding)
    reference = TokenReferenceBase(reference_token_idx=0)
    records = []
    for text, deciding, label in REVIEWS:
        words = text.split()
        words += ["<pad>"] * (7 - len(words))
        ids = torch.tensor([[IMDB_WORDS.index(word) for word in words]])
        pads = reference.generate_reference(7, device="cpu").unsqueeze(0)
        attributions, delta = attribution.attribute(
            ids, pads, n_steps=200, return_convergence_delta=True
        )
        scores = attributions.sum(dim=2).squeeze(0)
        with torch.no_grad():
            difference = float(forward(ids) - forward(pads))
            predicted = float(probability(ids))
        assert round(predicted) == label
        assert words[int(scores.abs().argmax())] == deciding
        assert (scores[words.index(deciding)] > 0) == bool(label)
        assert float(scores.sum()) == pytest.approx(difference, rel=0.05)
        assert float(delta) == pytest.approx(float(scores.sum()) - difference, abs=1e-4)
        assert not bool(scores[ids[0] == 0].any())
        scores = (scores / scores.norm()).detach().numpy()
        records.append(
            viz.VisualizationDataRecord(
                scores, predicted, round(predicted), label, 1, scores.sum(), words, delta
            )
        )
    # Of the words in each row the deciding one has the strongest colour, green or red.
    rows = re.split("<tr><td>", viz.visualize_text(records).data)[1:]
    for row, (_, deciding, label) in zip(rows, REVIEWS, strict=True):
        marks = re.findall(r"hsl\((\d+), 75%, (\d+)%\).*?> (\S+)", row, flags=re.DOTALL)
        hue, _, word = min(marks, key=lambda mark: int(mark[1]))
        assert (word, hue) == (deciding, "120" if label else "0")


# --- Titanic: a table and two classes -------------------------------------------------------------

PASSENGER = ["female", "age", "siblings", "parents", "fare", "first_class"]
#: Of each on the log-odds of survival.
SURVIVAL = torch.tensor([2.0, -1.5, 0.0, 0.0, 0.0, 1.0])


class TitanicNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear1 = nn.Linear(6, 12)
        self.sigmoid1 = nn.Sigmoid()
        self.linear2 = nn.Linear(12, 8)
        self.sigmoid2 = nn.Sigmoid()
        self.linear3 = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.sigmoid2(self.linear2(self.sigmoid1(self.linear1(x))))
        return self.linear3(hidden).softmax(dim=1)


@pytest.fixture(scope="module")
def titanic() -> tuple[TitanicNet, Tensor, Tensor]:
    """A trained network, passengers that it did not see (N, 6), and their exact Shapley values."""
    torch.manual_seed(0)
    x = torch.rand(500, 6)
    x[:, [0, 5]] = x[:, [0, 5]].round()
    survived = torch.bernoulli(torch.sigmoid(2 * ((x - 0.5) @ SURVIVAL))).long()
    net = TitanicNet()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.03)
    for _ in range(200):
        loss = F.nll_loss(net(x[:400]).log(), survived[:400])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net, x = net.eval(), x[400:]
    return net, x, ShapleyValues(net).attribute(x, target=1, perturbations_per_eval=6)


@INPUT_METHODS
def test_titanic(titanic: tuple[TitanicNet, Tensor, Tensor], method: type[Any]) -> None:
    net, x, shapley = titanic
    x = x.clone().requires_grad_()
    of_layer, of_neuron = LayerConductance(net, net.sigmoid1), NeuronConductance(net, net.sigmoid1)
    neurons = of_layer.attribute(x, target=1)
    neuron = of_neuron.attribute(x, neuron_selector=3, target=1)

    scores, delta = method(net).attribute(x, target=1, return_convergence_delta=True)
    scores = scores.detach()
    difference = (net(x) - net(torch.zeros_like(x)))[:, 1].detach()
    torch.testing.assert_close(scores.sum(dim=1), difference, rtol=0, atol=5e-3)
    torch.testing.assert_close(delta, scores.sum(dim=1) - difference, rtol=0, atol=1e-4)

    deciding = SURVIVAL != 0
    assert torch.equal(scores.mean(dim=0).sign()[deciding], SURVIVAL.sign()[deciding])
    assert bool((scores[x[:, 0] == 1, 0] > 0).all())  # of every woman
    assert bool((scores[:, 1] < 0).all())  # everyone's age
    size = scores.abs().mean(dim=0)
    assert float(size[deciding].min()) > float(size[~deciding].max())
    assert median_rank_correlation(scores, shapley) > 0.9
    assert float((scores.sign() == shapley.sign())[:, deciding].float().mean()) > 0.97

    # What Captum has for layers and neurons finds the network as it was.
    assert torch.equal(of_layer.attribute(x, target=1), neurons)
    assert torch.equal(of_neuron.attribute(x, neuron_selector=3, target=1), neuron)


# --- House prices: a regression -------------------------------------------------------------------

#: Of income, age, rooms, bedrooms, population, occupants, and two coordinates.
PRICES = torch.tensor([2.0, 0.5, -1.2, 0.9, 0.0, -0.7, -1.6, 0.2])


class PriceNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin1 = nn.Linear(8, 32)
        self.lin2 = nn.Linear(32, 16)
        self.lin3 = nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin3(self.lin2(self.lin1(x).relu()).relu())


@pytest.fixture(scope="module")
def prices() -> tuple[PriceNet, Tensor, Tensor]:
    """A trained network, what it was trained on, and what it did not see."""
    torch.manual_seed(0)
    x = torch.rand(400, 8)
    y = (x @ PRICES + 0.4 * x[:, 0] * x[:, 1]).unsqueeze(1) + 0.05 * torch.randn(400, 1)
    model = PriceNet()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(300):
        loss = F.mse_loss(model(x[:300]), y[:300])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval(), x[:300], x[300:]


@INPUT_METHODS
def test_house_prices(prices: tuple[PriceNet, Tensor, Tensor], method: type[Any]) -> None:
    model, x_train, x = prices
    attribution = method(model)
    scores, delta = attribution.attribute(x, n_steps=50, return_convergence_delta=True)
    scores = scores.detach()
    difference = (model(x) - model(torch.zeros_like(x))).squeeze(1).detach()
    torch.testing.assert_close(scores.sum(dim=1), difference, rtol=0, atol=0.02)
    torch.testing.assert_close(delta, scores.sum(dim=1) - difference, rtol=0, atol=1e-4)
    # The direction of each feature that counts, over all houses.
    counts = PRICES.abs() > 0.3
    assert torch.equal(scores.sum(dim=0).sign()[counts], PRICES.sign()[counts])

    others = {
        "integrated gradients": IntegratedGradients(model).attribute(x, n_steps=50),
        "gradient SHAP": GradientShap(model).attribute(x, torch.zeros(1, 8)),
        "feature ablation": FeatureAblation(model).attribute(x),
        "noise tunnel": NoiseTunnel(attribution).attribute(x, stdevs=0.1),
    }
    for name, other in others.items():
        assert rank_correlation(scores.sum(dim=0), other.sum(dim=0)) > 0.95, name
        assert median_rank_correlation(scores, other) > 0.9, name

    # Against the houses that it was trained on: against their mean, as their prices add up.
    average = x_train.mean(dim=0, keepdim=True)
    scores = attribution.attribute(x, average)
    against = GradientShap(model).attribute(x, x_train, n_samples=50)
    assert median_rank_correlation(scores, against) > 0.9


# --- CIFAR: images --------------------------------------------------------------------------------

RED, BLUE = (slice(2, 7), slice(8, 13)), (slice(9, 14), slice(1, 6))


def all_highest_inside(square: tuple[slice, slice], heat: Tensor) -> bool:
    """Whether the ten highest of a map (H, W) are inside a square."""
    places = torch.zeros_like(heat, dtype=torch.bool)
    places[square] = True
    return bool(places.flatten()[heat.flatten().topk(10).indices].all())


class ImageNet(nn.Module):
    """Images (N, 3, 16, 16) to logits: red squares speak for class 0, blue ones for class 1."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, 4, 5)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(4, 3)
        with torch.no_grad():
            self.convolution.weight.mul_(0.1)
            self.convolution.weight[0, 0] = self.convolution.weight[1, 2] = 0.04
            self.convolution.bias.copy_(torch.tensor([-0.2, -0.2, 0.0, 0.0]))
            self.head.weight.mul_(0.1)
            self.head.weight[:2, :2] = torch.tensor([[2.0, -2.0], [-2.0, 2.0]])

    def forward(self, x: Tensor) -> Tensor:
        found = self.pool(self.convolution(x).relu())
        return self.head(found.flatten(2).sum(-1))


def picture() -> Tensor:
    image = 0.1 * torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    image[0, 0, RED[0], RED[1]] = 1.0
    image[0, 2, BLUE[0], BLUE[1]] = 0.7
    return image


@INPUT_METHODS
def test_cifar(method: type[Any]) -> None:
    net, image = ImageNet().eval(), picture()
    image.requires_grad_()
    label = net(image).argmax(dim=1)[0]
    assert int(label) == 0
    attribution = method(net)
    scores, delta = attribution.attribute(
        image, target=label, baselines=image * 0, return_convergence_delta=True
    )
    scores = scores.detach()
    difference = (net(image) - net(image * 0))[:, 0].detach()
    torch.testing.assert_close(scores.sum().unsqueeze(0), difference, rtol=0.02, atol=0)
    torch.testing.assert_close(delta, scores.sum().unsqueeze(0) - difference, rtol=0, atol=1e-4)
    by_place = scores[0].sum(dim=0)
    assert float(by_place[RED].sum()) > float(difference)  # since blue speaks against it
    assert float(by_place[BLUE].sum()) < 0

    channels_last = scores[0].permute(1, 2, 0).numpy()
    original = image[0].detach().permute(1, 2, 0).numpy()
    pytest.importorskip("matplotlib")

    def shown(attributions: Any, sign: str) -> Tensor:
        _, axis = viz.visualize_image_attr(
            attributions,
            original,
            method="blended_heat_map",
            sign=sign,
            show_colorbar=True,
            use_pyplot=False,
        )
        return torch.from_numpy(axis.images[-1].get_array().data)

    for sign, square in (("positive", RED), ("negative", BLUE), ("absolute_value", RED)):
        heat = shown(channels_last, sign)
        assert float(heat.min()) >= 0
        assert all_highest_inside(square, heat), sign
    heat = shown(channels_last, "all")
    assert all_highest_inside(RED, heat)
    assert all_highest_inside(BLUE, -heat)

    squared = NoiseTunnel(attribution).attribute(
        image,
        target=label,
        baselines=image * 0,
        nt_type="smoothgrad_sq",
        nt_samples=10,
        stdevs=0.1,
    )
    squared = squared[0].detach()
    assert bool((squared >= 0).all())
    heat = shown(squared.permute(1, 2, 0).numpy(), "absolute_value")
    assert all_highest_inside(RED, heat)


# --- Visual question answering: a picture and a question in one call ------------------------------

VQA_WORDS = ["<pad>", "which", "colour", "has", "the", "square", "above", "below", "?"]
ASKED = ["which", "colour", "has", "the", "square", "above", "?"]


class AnsweringNet(nn.Module):
    """The colour of the upper or the lower half, whichever the question asks for.

    Pictures (N, 3, 16, 16), words (N, L) of which the first ``n_words`` count; logits of three
    colours (N, 3).
    """

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(len(VQA_WORDS), 8, padding_idx=0)
        with torch.no_grad():
            self.embedding.weight[:, :2] *= 0.1
            self.embedding.weight[VQA_WORDS.index("above"), 0] = 3.0
            self.embedding.weight[VQA_WORDS.index("below"), 1] = 3.0

    def forward(self, v: Tensor, q: Tensor, n_words: Tensor) -> Tensor:
        halves = v.unflatten(2, (2, 8)).sum(dim=(3, 4)) / 8  # (N, 3, 2)
        counts = torch.arange(q.shape[1]) < n_words[:, None]
        asked = (self.embedding(q) * counts[..., None]).sum(dim=1)
        where = asked[:, :2].softmax(dim=-1)
        return (halves * where[:, None]).sum(dim=-1)


@LAYER_METHODS
def test_visual_question_answering(method: type[Any]) -> None:
    model = ModelInputWrapper(AnsweringNet().eval())
    image = picture()
    question = torch.tensor([[VQA_WORDS.index(word) for word in ASKED]])
    n_words = torch.tensor([len(ASKED)])
    reference = TokenReferenceBase(reference_token_idx=0)
    pads = reference.generate_reference(len(ASKED), device="cpu").unsqueeze(0)
    inputs, baselines = (image, question), (image * 0.0, pads)
    answer = model(*inputs, n_words).argmax(dim=1)
    assert answer.tolist() == [0]
    attribution = method(model, [model.input_maps["v"], model.module.embedding])
    of_image, of_words = attribution.attribute(
        inputs=inputs,
        baselines=baselines,
        target=answer,
        additional_forward_args=n_words,
        n_steps=30,
    )
    difference = (model(*inputs, n_words) - model(*baselines, n_words))[0, 0].detach()
    words = of_words.detach().sum(dim=-1)[0]
    places = of_image.detach()[0].sum(dim=0)
    torch.testing.assert_close(words.sum() + places.sum(), difference, rtol=0.02, atol=0)
    assert ASKED[int(words.argmax())] == "above"
    assert all_highest_inside(RED, places)


# --- Llama 2 --------------------------------------------------------------------------------------

NAMES, CITIES, JOBS = ("Ann", "Ben"), ("coast", "hills", "north"), ("baker", "lawyer", "pilot")
#: What is liked there, and in that job.
LIKES = ("sailing", "hiking", "skiing", "cakes", "debates", "maps")
LLAMA_WORDS = [
    *("<unk>", "<s>", "</s>", *NAMES, *CITIES, *JOBS, *LIKES),
    *("lives", "at", "the", "and", "is", "a", ".", "likes"),
]
TEMPLATE = "{} lives at the {} and is a {} . {} likes"
PERSON = ("Ann", "hills", "baker", "Ann")
LIKED = ("hiking", "and", "cakes")


@pytest.fixture(scope="module")
def words_tokenizer() -> PreTrainedTokenizerFast:
    """One token for each word, after ``<s>``, whose id is 1 as in Llama 2."""
    vocabulary = {word: i for i, word in enumerate(LLAMA_WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="</s>",
    )


@pytest.fixture(scope="module")
def llama(words_tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Has learned what is liked at each place and in each job, some words being unknown."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(LLAMA_WORDS),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = LlamaForCausalLM(config)
    texts = [
        f"{TEMPLATE.format(name, city, job, name)} {LIKES[i]} and {LIKES[3 + j]} </s>"
        for name in NAMES
        for i, city in enumerate(CITIES)
        for j, job in enumerate(JOBS)
    ]
    ids = words_tokenizer(texts, return_tensors="pt").input_ids
    is_prompt = torch.arange(ids.shape[1]) < ids.shape[1] - 4
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    for _ in range(400):
        share = 0.3 * float(torch.rand(()))
        unknown = (torch.rand(ids.shape) < share) & is_prompt
        left = (torch.rand(ids.shape[1]) > share) | ~is_prompt
        left[0] = True
        read, labels = ids.masked_fill(unknown, 0), ids.masked_fill(is_prompt, -100)
        loss = model(input_ids=read[:, left], labels=labels[:, left]).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def assert_finds_place_and_job(result: LLMAttributionResult, place: str, job: str) -> None:
    assert result.token_attr is not None
    rows = dict(zip(result.output_tokens, result.token_attr, strict=True))
    for answer, deciding in ((LIKED[0], place), (LIKED[2], job)):
        assert result.input_tokens[int(rows[answer].argmax())] == deciding
        assert float(rows[answer].max()) > 0
    assert rows["and"].abs().max() < 0.1 * rows[LIKED[0]].max()  # it follows always
    torch.testing.assert_close(result.seq_attr.sum(), result.token_attr.sum())


@pytest.mark.parametrize("method", [FeatureAblation, AMLAttribution])
def test_llama_by_perturbation(
    llama: LlamaForCausalLM, words_tokenizer: PreTrainedTokenizerFast, method: type[Any]
) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("Agg")
    tool = LLMAttribution(method(llama), words_tokenizer)
    skip_tokens = [1]
    inp = TextTokenInput(TEMPLATE.format(*PERSON), words_tokenizer, skip_tokens=skip_tokens)
    result = tool.attribute(inp, target=" ".join(LIKED), skip_tokens=skip_tokens)
    assert result.input_tokens == TEMPLATE.format(*PERSON).split()
    assert_finds_place_and_job(result, "hills", "baker")

    inp = TextTemplateInput(TEMPLATE, list(PERSON))
    result = tool.attribute(inp, target=" ".join(LIKED), skip_tokens=skip_tokens)
    assert_finds_place_and_job(result, "hills", "baker")
    for plot in (result.plot_token_attr, result.plot_seq_attr):
        figure, _ = plot(show=False)
        pyplot.close(figure)

    # Another person's values in their place: nothing but place and job makes the difference.
    inp = TextTemplateInput(TEMPLATE, list(PERSON), baselines=["Ben", "coast", "pilot", "Ben"])
    result = tool.attribute(inp, target=" ".join(LIKED), skip_tokens=skip_tokens)
    assert_finds_place_and_job(result, "hills", "baker")
    assert result.token_attr is not None
    for row in result.token_attr[[0, 2]].abs():
        others, largest = row.sort().values[:-1], row.max()
        # A regression of the probability, which is not additive, leaves something to the others.
        assert bool((others < 0.15 * largest).all())


@pytest.mark.parametrize("method", [FeatureAblation, AMLAttribution])
def test_llama_explains_what_it_writes(
    llama: LlamaForCausalLM, words_tokenizer: PreTrainedTokenizerFast, method: type[Any]
) -> None:
    def prompt(*parts: str) -> str:
        return " ".join([*filter(None, parts), ". Ann likes"])

    place, job = "Ann lives at the hills", "and is a baker"
    tool = LLMAttribution(method(llama), words_tokenizer)
    result = tool.attribute(TextTemplateInput(prompt, values=[place, job]), skip_tokens=[1])
    assert result.output_tokens == [*LIKED, "</s>"]
    assert_finds_place_and_job(result, place, job)


@LAYER_METHODS
def test_llama_by_gradients(
    llama: LlamaForCausalLM, words_tokenizer: PreTrainedTokenizerFast, method: type[Any]
) -> None:
    skip_tokens = [1]
    inp = TextTokenInput(TEMPLATE.format(*PERSON), words_tokenizer, skip_tokens=skip_tokens)
    tool = LLMGradientAttribution(method(llama, llama.model.embed_tokens), words_tokenizer)
    # Captum's own layer methods take no skip_tokens any more; ours still do as the tutorial has it.
    older = {"skip_tokens": skip_tokens} if method is LayerAMLAttribution else {}
    result = tool.attribute(inp, target=" ".join(LIKED), **older)
    assert_finds_place_and_job(result, "hills", "baker")
