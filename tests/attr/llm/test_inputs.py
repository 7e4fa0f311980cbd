"""Tokens of a prompt by the value they belong to, in any script, beside a naive reference."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from captum.attr import TextTemplateInput, TextTokenInput
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from captum_aml.attr.llm.inputs import as_prompt
from tests._helpers.decoders import bpe_tokenizer

TOKENIZERS = {
    "byte-level": bpe_tokenizer(eos_token="<eos>"),
    "metaspace": bpe_tokenizer(metaspace=True),
}
#: Words that the tokenizers merge, digits (of which placeholders consist), scripts, an emoji of
#: several characters, a combining mark, braces and white space.
PIECES = (
    "film",
    " was",
    "good",
    "a",
    "9",
    "90817",
    "日本",
    "é",
    "e\u0301",
    "👍🏽",
    "ש",
    "{",
    "\n",
    " ",
)
texts = st.lists(st.sampled_from(PIECES), max_size=3).map("".join)


def naive(
    literals: list[str], values: list[str], groups: list[int], tokenizer: PreTrainedTokenizerFast
) -> tuple[list[int], list[int]]:
    """The owner of every character is known; a token goes to the one who owns most of it."""
    owners: list[int | None] = []
    prompt = ""
    for number, literal in enumerate(literals):
        prompt += literal
        owners += [None] * len(literal)
        if number < len(values):
            prompt += values[number]
            owners += [groups[number]] * len(values[number])
    encoded = tokenizer(prompt, return_offsets_mapping=True)
    features = []
    for start, end in encoded["offset_mapping"]:
        counts = Counter(owner for owner in owners[start:end] if owner is not None)
        most = max(counts.values(), default=0)
        features.append(min((g for g, n in counts.items() if n == most), default=-1))
    return encoded["input_ids"], features


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(data=st.data())
def test_tokens_are_those_of_a_naive_reference(kind: str, data: Any) -> None:
    values = data.draw(st.lists(texts, min_size=1, max_size=4))
    literals = data.draw(st.lists(texts, min_size=len(values) + 1, max_size=len(values) + 1))
    groups = data.draw(st.permutations(range(len(values))))
    if data.draw(st.booleans()):
        groups = [group // 2 for group in groups]
    escaped = [literal.replace("{", "{{") for literal in literals]
    inp = TextTemplateInput("{}".join(escaped), values=values, mask=list(groups))
    numbers = inp.formatted_mask
    tokenizer = TOKENIZERS[kind]
    prompt = as_prompt(inp, tokenizer, tokenizer.convert_tokens_to_ids("Ġa") or 0)
    ids, features = naive(literals, values, numbers, tokenizer)
    assert prompt.ids.tolist() == ids
    assert prompt.features.tolist() == features
    kept = prompt.features < 0
    assert torch.equal(prompt.baselines[kept], prompt.ids[kept])
    for feature, holder in enumerate(prompt.holders.tolist()):
        shown = any(v for v, n in zip(values, numbers, strict=True) if n == feature)
        # A feature that shows characters is held by tokens, unless the tokenizer drops those.
        assert holder == feature if feature in features else holder in {-1, *features}
        assert shown or holder == -1


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_chat_templates_are_templates(kind: str) -> None:
    tokenizer = TOKENIZERS[kind]

    def chat(system: str, user: str) -> Any:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        template = (
            "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] | trim }}<eos>{% endfor %}"
        )
        return tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False)

    values = ["a film ", "a film"]
    prompt = as_prompt(TextTemplateInput(chat, values=values), tokenizer, 0)
    text = chat(*values)
    starts = [text.index("a film"), text.rindex("a film")]
    offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    for (start, end), feature in zip(offsets, prompt.features.tolist(), strict=True):
        inside = [n for n, s in enumerate(starts) if start < s + 6 and end > s and end > start]
        assert [feature] == (inside or [-1])


@pytest.mark.parametrize("as_template", [False, True], ids=["string", "template"])
def test_a_rendered_prompt_gets_no_second_beginning_token(as_template: bool) -> None:
    tokenizer = TOKENIZERS["metaspace"]
    messages = [{"role": "user", "content": "a film"}]
    template = "{{ bos_token }}{% for m in messages %}[{{ m['content'] }}]{% endfor %}"
    expected = tokenizer.apply_chat_template(messages, chat_template=template)["input_ids"]
    rendered = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False)
    inp = TextTemplateInput("<s>[{}]", values=["a film"]) if as_template else rendered
    prompt = as_prompt(inp, tokenizer, 2)
    assert prompt.ids.tolist() == expected
    assert prompt.features[0] == -1
    plain = as_prompt(rendered.removeprefix("<s>"), tokenizer, 2)
    assert plain.ids[0] == tokenizer.bos_token_id, "what has none gets one"


def test_two_beginning_tokens_of_captums_input_are_said() -> None:
    tokenizer = TOKENIZERS["metaspace"]
    with pytest.warns(UserWarning, match="two beginning-of-sequence tokens"):
        as_prompt(TextTokenInput("<s>a film", tokenizer), tokenizer, 2)
