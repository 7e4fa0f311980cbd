r"""Trains a small decoder in Llama's style that answers a prompt with the sentiment of a text.

    python examples/train_decoder.py --data FOLDER --out FOLDER

The folder of data holds ``train.jsonl`` and ``validation.jsonl``, one object with ``text`` and
``label`` (0 negative, 1 positive) a line; ``test.jsonl`` is measured at the end if it is there.
Everything comes from the training texts alone: a byte-level BPE tokenizer in which either label
word is one token, and a language model with its first weights drawn at random. It takes minutes
on two cores and no network. A training sequence is

    <s>Text: a gripping , beautifully shot film . Label: positive</s>

and the loss, with :math:`x` its tokens and :math:`p` the place of the label word,

.. math:: -\frac{1}{|T|} \sum_{t \in T} \log p(x_t \mid x_{<t})
          - \lambda \, \log p(x_p \mid x_{<p}),

where :math:`T` is all places but the label word's: language modelling, and the label with a weight
of its own, each averaged over a batch.

So few texts are soon known by heart. Against it stand dropout (of embeddings, and of what each
attention and feed-forward block adds), weight decay, words left out of the texts at random, an
exponential average of the weights, and stopping when the accuracy on validation texts no longer
grows. Words that are left out leave no gap: like any ordinary language model, this one never sees
a masked text, nor the tokens ``<unk>`` and ``<pad>``.

For explanations ``<s>`` is the better baseline: the model knows it from training. ``<unk>`` keeps
its first, random embedding. That of ``<pad>`` is zero, and a token blended with it changes nothing
until hardly any of it is left, because each block normalizes the size of what it reads.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import tokenizers
import torch
import torch.nn.functional as F
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEMPLATE = "Text: {text} Label:"
LABEL_WORDS = (" negative", " positive")
SPECIAL_TOKENS = ("<unk>", "<s>", "</s>", "<pad>")
MAX_LENGTH = 256
IGNORED = -100  # what cross_entropy leaves out


@dataclass(frozen=True)
class Settings:
    """Settings of a run.

    Args:
        vocabulary (int): entries of the tokenizer at most.
        hidden_size (int): width D.
        layers (int): blocks.
        heads (int): attention heads of a block.
        epochs (int): passes over the training texts at most.
        patience (int): epochs without a better accuracy after which training stops.
        batch_size (int): texts of a step.
        lr (float): learning rate after the warm-up; it falls to zero along a cosine.
        weight_decay (float): of all weights that are matrices.
        dropout (float): of embeddings and of what blocks add.
        word_dropout (float): probability with which a word is left out of a training text.
        label_weight (float): weight λ of the label's loss.
        ema_decay (float): decay of the average of the weights.
        seed (int): of first weights, order, dropout and words left out.
    """

    vocabulary: int = 6000
    hidden_size: int = 192
    layers: int = 4
    heads: int = 4
    epochs: int = 5
    patience: int = 2
    batch_size: int = 32
    lr: float = 1e-3
    weight_decay: float = 0.1
    dropout: float = 0.3
    word_dropout: float = 0.3
    label_weight: float = 1.0
    ema_decay: float = 0.995
    seed: int = 0


@dataclass(frozen=True)
class Labelled:
    """Texts and their labels, 0 or 1."""

    texts: list[str]
    labels: list[int]

    def first(self, n: int) -> Labelled:
        """The first texts."""
        return Labelled(self.texts[:n], self.labels[:n])


def read(path: Path) -> Labelled:
    """Reads a file of JSON lines."""
    with path.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines if line.strip()]
    return Labelled([row["text"] for row in rows], [int(row["label"]) for row in rows])


# Tokenizer and model -----------------------------------------------------------------------------


def build_tokenizer(data: Labelled, vocabulary: int) -> PreTrainedTokenizerFast:
    """Trains a byte-level BPE tokenizer on prompts with their answers.

    Raises:
        ValueError: if a label word is more than one token, which happens with few texts or a small
            vocabulary.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        (
            TEMPLATE.format(text=text) + LABEL_WORDS[label]
            for text, label in zip(data.texts, data.labels, strict=True)
        ),
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            min_frequency=2,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=True),
            processors.TemplateProcessing(
                single="<s> $A",
                pair="<s> $A $B",
                special_tokens=[("<s>", tokenizer.token_to_id("<s>"))],
            ),
        ]
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=MAX_LENGTH,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )
    label_ids(wrapped)
    return wrapped


def label_ids(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """The token of each label word.

    Raises:
        ValueError: if a label word is more than one token.
    """
    ids = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in LABEL_WORDS]
    for word, own in zip(LABEL_WORDS, ids, strict=True):
        if len(own) != 1:
            raise ValueError(f"the label word {word!r} became {len(own)} tokens, expected one")
    return [own[0] for own in ids]


def build_model(tokenizer: PreTrainedTokenizerFast, settings: Settings) -> LlamaForCausalLM:
    """An untrained decoder."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden_size,
        intermediate_size=8 * settings.hidden_size // 3,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


# Data --------------------------------------------------------------------------------------------


def without_words(text: str, rate: float, rng: random.Random) -> str:
    """A text without some of its words; a text that would lose them all keeps them."""
    if rate == 0:
        return text
    kept = [word for word in text.split() if rng.random() >= rate]
    return " ".join(kept) or text


def encode(
    data: Labelled, tokenizer: PreTrainedTokenizerFast, *, answered: bool
) -> list[list[int]]:
    """Token ids of prompts; answered ones go on with label word and ``</s>``.

    Texts are cut where a prompt would not fit into the model; the prompt's own end never is.
    """
    start, end = (
        tokenizer(part, add_special_tokens=False)["input_ids"]
        for part in TEMPLATE.split(" {text}", maxsplit=1)
    )
    words = label_ids(tokenizer)
    texts = tokenizer([f" {text}" for text in data.texts], add_special_tokens=False, verbose=False)[
        "input_ids"
    ]
    room = MAX_LENGTH - len(start) - len(end) - 3  # <s>, the label word and </s>
    return [
        [
            tokenizer.bos_token_id,
            *start,
            *ids[:room],
            *end,
            *([words[label], tokenizer.eos_token_id] if answered else []),
        ]
        for ids, label in zip(texts, data.labels, strict=True)
    ]


def padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """Rows filled up on the right, where causal attention makes padding invisible, (N, L)."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])


def draw_batches(lengths: Sequence[int], batch_size: int, rng: random.Random) -> list[list[int]]:
    """Draws an epoch of batches, each of texts of similar length, which saves padding."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i] + 4 * rng.random())
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    rng.shuffle(batches)
    return batches


# Training and checks -----------------------------------------------------------------------------


def losses(
    model: LlamaForCausalLM, rows: Sequence[Sequence[int]], pad_id: int
) -> tuple[Tensor, Tensor]:
    """Language modelling and label loss of answered prompts, each averaged over the batch."""
    ids = padded(rows, pad_id)
    following = padded([row[1:] for row in rows], IGNORED)
    labels = torch.full_like(following, IGNORED)
    places = torch.tensor([len(row) - 3 for row in rows])[:, None]  # the label word comes next
    labels.scatter_(1, places, following.gather(1, places))
    following.scatter_(1, places, IGNORED)

    states = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
    language = following != IGNORED
    answer = labels != IGNORED
    return (
        F.cross_entropy(model.lm_head(states[language]), following[language]),
        F.cross_entropy(model.lm_head(states[answer]), labels[answer]),
    )


@contextmanager
def dropping_out(model: LlamaForCausalLM, rate: float) -> Iterator[None]:
    """Gives the model the dropout that Llama has none of, for training only."""

    def dropped(module: nn.Module, args: Any, output: Any) -> Any:
        if not module.training:
            return output
        if isinstance(output, tuple):  # attention gives its weights too
            return (F.dropout(output[0], rate), *output[1:])
        return F.dropout(output, rate)

    blocks = [part for layer in model.model.layers for part in (layer.self_attn, layer.mlp)]
    hooks = [part.register_forward_hook(dropped) for part in (model.model.embed_tokens, *blocks)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Moves an exponential average of weights towards those of a model."""
    with torch.no_grad():
        for own, new in zip(average.parameters(), model.parameters(), strict=True):
            own.lerp_(new, 1 - decay)


def rate_at(step: int, total: int) -> float:
    """The share of the learning rate at a step: a short warm-up, then a cosine to zero."""
    warm_up = max(1, total // 20)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, total - warm_up)))


@torch.no_grad()
def accuracy(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    data: Labelled,
    batch_size: int = 128,
) -> float:
    """Share of prompts after which the right label word has the larger logit."""
    model.eval()
    rows = encode(data, tokenizer, answered=False)
    words = torch.tensor(label_ids(tokenizer))
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    right = 0
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = [rows[i] for i in chosen]
        states = model.model(input_ids=padded(batch, tokenizer.pad_token_id)).last_hidden_state
        last = states[torch.arange(len(batch)), torch.tensor([len(row) - 1 for row in batch])]
        predicted = model.lm_head(last)[:, words].argmax(dim=1)
        right += int((predicted == torch.tensor([data.labels[i] for i in chosen])).sum())
    return right / len(rows)


def train(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    data: Labelled,
    validation: Labelled,
    settings: Settings,
) -> tuple[LlamaForCausalLM, list[dict[str, float]]]:
    """Trains a model.

    Returns:
        (LlamaForCausalLM, list of dict): the averaged weights of the epoch with the best accuracy
        on the validation texts, and losses and accuracy of every epoch.
    """
    rng = random.Random(settings.seed)
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": settings.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=settings.lr,
        betas=(0.9, 0.98),
    )
    total = settings.epochs * math.ceil(len(data.texts) / settings.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(rate_at, total=total))
    average = copy.deepcopy(model).eval()
    best = copy.deepcopy(average)
    best_epoch, step = 0, 0
    history: list[dict[str, float]] = []
    with dropping_out(model, settings.dropout):
        for epoch in range(1, settings.epochs + 1):
            model.train()
            texts = [without_words(text, settings.word_dropout, rng) for text in data.texts]
            rows = encode(Labelled(texts, data.labels), tokenizer, answered=True)
            sums = torch.zeros(2)
            for batch in draw_batches([len(row) for row in rows], settings.batch_size, rng):
                language, label = losses(model, [rows[i] for i in batch], tokenizer.pad_token_id)
                optimizer.zero_grad()
                (language + settings.label_weight * label).backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                step += 1
                # A short memory at first, or the average would be of the random weights.
                update_average(average, model, min(settings.ema_decay, step / (step + 10)))
                sums += torch.tensor([language.item(), label.item()]) * len(batch)
            means = (sums / len(rows)).tolist()
            found = accuracy(average, tokenizer, validation)
            if not history or found > max(record["accuracy"] for record in history):
                best.load_state_dict(average.state_dict())
                best_epoch = epoch
            history.append({"language": means[0], "label": means[1], "accuracy": found})
            print(
                f"epoch {epoch:2d} of {settings.epochs}: language {means[0]:.3f}, "
                f"label {means[1]:.3f}, validation accuracy {found:.2%}",
                flush=True,
            )
            if epoch - best_epoch >= settings.patience:
                break
    return best, history


def save(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    out: Path,
    record: dict[str, Any],
) -> None:
    """Saves model and tokenizer in the form of ``save_pretrained``, and what they are."""
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "training.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    for path in sorted(out.iterdir()):
        print(f"{path.stat().st_size:>10,} bytes  {path.name}")


def smoke(settings: Settings) -> Settings:
    """Settings of a run of seconds that shows that everything works, and learns nothing."""
    return replace(settings, vocabulary=700, hidden_size=16, layers=1, heads=2, epochs=1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains, measures and saves the decoder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the texts")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    for name, default in asdict(Settings()).items():
        option = "--" + name.replace("_", "-")
        parser.add_argument(option, type=type(default), default=default, help=f"default: {default}")
    parser.add_argument("--threads", type=int, help="threads of torch. Default: its own choice")
    parser.add_argument("--smoke", action="store_true", help="a tiny model on 64 texts")
    args = parser.parse_args(arguments)
    settings = Settings(**{name: getattr(args, name) for name in asdict(Settings())})

    data, validation = (read(args.data / f"{name}.jsonl") for name in ("train", "validation"))
    if args.smoke:
        settings = smoke(settings)
        data, validation = data.first(64), validation.first(64)
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(settings.seed)  # for the first weights and for dropout

    start = time.perf_counter()
    tokenizer = build_tokenizer(data, settings.vocabulary)
    model = build_model(tokenizer, settings)
    print(f"{len(tokenizer)} tokens, {model.num_parameters():,} parameters")
    model, history = train(model, tokenizer, data, validation, settings)
    seconds = time.perf_counter() - start
    results = {"validation": accuracy(model, tokenizer, validation)}
    if (args.data / "test.jsonl").exists() and not args.smoke:
        results["test"] = accuracy(model, tokenizer, read(args.data / "test.jsonl"))
    print(f"trained in {seconds:.0f} s")
    for name, value in results.items():
        print(f"{name} accuracy {value:.2%}")
    record = {
        "what": "a decoder trained from scratch to answer a prompt with the sentiment of a text",
        "template": TEMPLATE,
        "labels": dict(zip(("negative", "positive"), LABEL_WORDS, strict=True)),
        "accuracy": results,
        "parameters": model.num_parameters(),
        "tokens": len(tokenizer),
        "training_texts": len(data.texts),
        "validation_texts": len(validation.texts),
        "seconds": round(seconds, 1),
        "threads": torch.get_num_threads(),
        "settings": asdict(settings),
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
        },
        "history": history,
    }
    save(model, tokenizer, args.out, record)


if __name__ == "__main__":
    main()
