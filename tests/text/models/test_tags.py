"""Labels, tags and stretches, against values derived by hand."""

from __future__ import annotations

import pytest
import torch

from captum_aml.text.models.tags import TagScheme


def stretches(labels: tuple[str, ...], text: str) -> list[tuple[int, int]]:
    return TagScheme(labels).grouped([labels.index(label) for label in text.split()])


@pytest.mark.parametrize(
    ("labels", "tags"),
    [
        (("O", "B-PER", "I-PER", "I-LOC"), ("O", "PER", "LOC")),
        (("NOUN", "VERB"), ("NOUN", "VERB")),
        (("O", "U-PER", "B-PER", "L-PER", "I-PER"), ("O", "PER")),
        (("O", "B-MAIL", "E-MAIL", "PHONE"), ("O", "MAIL", "E-MAIL", "PHONE")),
    ],
)
def test_tags_are_labels_without_the_prefixes_of_their_scheme(
    labels: tuple[str, ...], tags: tuple[str, ...]
) -> None:
    assert TagScheme(labels).tags == tags


def test_the_probability_of_a_tag_is_the_sum_of_those_of_its_labels() -> None:
    logits = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    scheme = TagScheme(("O", "B-PER", "B-LOC", "I-PER", "I-LOC"))
    p = logits.softmax(dim=-1)
    expected = torch.stack([p[..., 0], p[..., 1] + p[..., 3], p[..., 2] + p[..., 4]], dim=-1)
    torch.testing.assert_close(scheme.logits(logits).softmax(dim=-1), expected)


def test_stretches_end_where_the_tag_changes_or_an_entity_begins() -> None:
    labels = ("O", "B-PER", "I-PER", "I-LOC")
    text = "O I-PER I-PER B-PER I-PER I-LOC O O"
    assert stretches(labels, text) == [(0, 1), (1, 3), (3, 5), (5, 6), (6, 8)]
    assert stretches(labels, "") == []
    assert stretches(("NOUN", "VERB"), "NOUN NOUN VERB") == [(0, 2), (2, 3)]
    four = ("O", "B-P", "I-P", "E-P", "S-P")
    assert stretches(four, "B-P E-P S-P S-P B-P I-P") == [(0, 2), (2, 3), (3, 4), (4, 6)]
