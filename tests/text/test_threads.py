"""An explainer that several threads share, as in a web service, gives each what it gives alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from captum_aml import AMLAttribution
from captum_aml.reviews import generate_reviews, load_reviews_classifier
from captum_aml.text import TextExplainer
from tests._helpers.models import PlantedClassifier, planted_texts

N_THREADS = 4


@pytest.mark.parametrize(
    ("method", "n_steps"), [("la-tuned", 6), ("mask-gradient", 4), ("ig", 5), ("lime", 20)]
)
def test_threads_share_an_explainer(method: str, n_steps: int) -> None:
    explainer = TextExplainer(*load_reviews_classifier(), method=method, n_steps=n_steps)
    texts = [review.text for review in generate_reviews(16)]
    alone = [explainer(text)[0] for text in texts]
    with ThreadPoolExecutor(N_THREADS) as pool:
        together = list(pool.map(lambda text: explainer(text)[0], texts))
    for one, same in zip(alone, together, strict=True):
        assert same.scores == pytest.approx(one.scores, abs=1e-5)
        assert same.probability == pytest.approx(one.probability, abs=1e-6)


def test_threads_share_an_attribution_and_leave_the_random_state() -> None:
    attribution = AMLAttribution(PlantedClassifier())
    ids, _ = planted_texts(16, 6, seed=0)
    alone = [attribution.attribute(row[None]) for row in ids]
    state = torch.get_rng_state()
    with ThreadPoolExecutor(N_THREADS) as pool:
        together = list(pool.map(lambda row: attribution.attribute(row[None]), ids))
    for one, same in zip(alone, together, strict=True):
        torch.testing.assert_close(same, one, rtol=0, atol=1e-6)
    assert torch.equal(torch.get_rng_state(), state)
