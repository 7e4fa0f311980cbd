"""A benchmark's results made by hand: fifteen methods, twelve metrics, plausible numbers."""

from __future__ import annotations

import random
import re

from captum_aml.benchmark.results import (
    BenchmarkResults,
    Cell,
    Comparison,
    Cost,
    Curve,
    Failure,
    MethodRow,
    Role,
)
from captum_aml.metrics import Metric
from captum_aml.visualization import ScoredText, TextCard

MEASURES = [
    Metric("aopc-comprehensiveness", "AOPC comprehensiveness", True, "faithfulness",
            "Mean drop of the probability without the top 1, 5, 10, 20 and 50 % of the tokens."),
    Metric("aopc-sufficiency", "AOPC sufficiency", False, "faithfulness",
            "Mean drop of the probability with the top tokens alone."),
    Metric("log-odds", "Log-odds", False, "faithfulness",
            "Change of the log-probability with the top 20 % replaced by [MASK]."),
    Metric("normalized-aopc", "Normalized AOPC", True, "faithfulness",
            "How far towards the best possible order the ranking comes."),
    Metric("comprehensiveness-pad", "Comprehensiveness, padded", True, "faithfulness",
            "Comprehensiveness under a removal that no method optimizes."),
    Metric("soft-sufficiency", "Soft sufficiency", True, "faithfulness",
            "Zhao and Aletras 2023."),
    Metric("infidelity", "Infidelity", False, "faithfulness", "Captum's infidelity."),
    Metric("auprc", "AUPRC", True, "plausibility", "Area under precision and recall."),
    Metric("token-f1", "Token F1", True, "plausibility", "F1 at the rationale's length."),
    Metric("iou-f1", "IOU-F1", True, "plausibility", "F1 of spans as ERASER defines it."),
    Metric("entropy", "Entropy", None, "complexity", "Entropy of the scores' shares, in bits."),
    Metric("effective-tokens", "Effective tokens", None, "complexity",
            "Two to the power of the entropy."),
]  # fmt: skip

METHODS: list[tuple[str, Role, float, float, float, float, float]] = [
    # name, role, quality, forward, backward, seconds, MiB
    ("random", "random", 0.08, 0, 0, 0.00002, 0.1),
    ("aml", "learned", 0.56, 1.98, 0, 0.0041, 12.3),
    ("aml-tuned", "learned", 0.61, 52, 50, 0.412, 188.2),
    ("mask-gradient", "learned", 0.53, 18, 16, 0.103, 176.0),
    ("la", "learned", 0.52, 1.98, 0, 0.0040, 12.3),
    ("saliency", "baseline", 0.21, 1, 1, 0.011, 34.0),
    ("input-x-gradient", "baseline", 0.12, 1, 1, 0.011, 34.1),
    ("integrated-gradients", "baseline", 0.36, 50, 50, 0.31, 151.0),
    ("gradient-shap", "baseline", 0.34, 25, 25, 0.16, 150.4),
    ("deep-lift", "baseline", 0.30, 2, 1, 0.022, 61.7),
    ("smooth-grad", "baseline", 0.23, 25, 25, 0.16, 149.0),
    ("occlusion", "baseline", 0.58, 24.6, 0, 0.071, 44.2),
    ("lime", "baseline", 0.45, 100, 0, 0.35, 46.0),
    ("kernel-shap", "baseline", 0.50, 100, 0, 0.37, 46.1),
    ("shapley-sampling", "baseline", 0.63, 615, 0, 1.9, 47.9),
]

TEXTS = [
    ("A gripping film, and the two leads are wonderful; I would not change one frame of it.", 0.98),
    ("it 's a charming and often affecting journey .", 0.99),
    ("unflinchingly bleak and desperate", 0.97),
    ("the acting , costumes , music , cinematography and sound are all astounding given the "
     "production 's austere locales . " * 3, 0.91),
    ("it 's slow -- very , very slow .", 0.99),
]  # fmt: skip

_SCALE = {"log-odds": -4.2, "infidelity": -0.004, "entropy": 3.1, "effective-tokens": 9.0}


def _cell(metric: Metric, quality: float, role: Role, generator: random.Random) -> Cell:
    scale = _SCALE.get(metric.name, 1.0)
    good = quality + generator.gauss(0, 0.03)
    if metric.higher_is_better is False and scale > 0:
        good = 0.7 - good
    mean, width = scale * good, abs(scale) * 0.03
    comparison = None
    if role == "learned" and metric.higher_is_better is not None:
        best = 0.63 if scale > 0 and metric.higher_is_better else 0.07
        difference = mean - best * scale if scale > 0 else mean - 0.63 * scale
        p = min(1.0, 10 ** -(abs(difference) / width * 1.5))
        better = (difference > 0) is metric.higher_is_better
        comparison = Comparison("shapley-sampling", difference, p, better)
    return Cell(mean, mean - width, mean + width, 200, comparison)


def _examples(generator: random.Random) -> list[TextCard]:
    cards = []
    for text, probability in TEXTS:
        offsets = [match.span() for match in re.finditer(r"\w+|[^\w\s]+", text)]
        rows = []
        for name, role, *_ in METHODS:
            signed = role == "baseline"
            scores = [generator.betavariate(0.4, 1.6) for _ in offsets]
            if signed:
                scores = [score * generator.choice([1, 1, -0.6]) for score in scores]
            rows.append(ScoredText(name, offsets, scores, signed=signed, target="positive"))
        cards.append(TextCard(text, "positive", probability, rows))
    return cards


def realistic() -> BenchmarkResults:
    generator = random.Random(7)
    rows = []
    for place, (name, role, quality, forward, backward, seconds, mib) in enumerate(METHODS):
        cells = {m.name: _cell(m, quality, role, generator) for m in MEASURES}
        failures: list[Failure] = []
        if name == "deep-lift":
            del cells["infidelity"]
            failures = [
                Failure(i, 0, f"RuntimeError: hook met twice in layer {i}") for i in (3, 77)
            ]
            cells["auprc"] = Cell(0.31, 0.29, 0.33, 198)
        rows.append(
            MethodRow(
                method=name,
                role=role,
                cells=cells,
                cost=Cost(forward, backward, seconds, None if name == "random" else mib),
                seeds=(0, 1, 2) if role == "random" or "shap" in name else (0,),
                training="25 min, 28,000 texts, 84,000 forward passes" if name == "aml" else "",
                rank=1.0 + 14 * (1 - quality) + place % 3 / 10,
                failures=failures,
                settings={"n_steps": 50, "batch_size": 32, "masker": None},
            )
        )
    shares = [i / 10 for i in range(11)]
    curves = [
        Curve(name, shares, [0.5 + 0.48 * (1 - s) ** (0.5 + 6 * quality) for s in shares])
        for name, _, quality, *_ in METHODS
    ]
    return BenchmarkResults(
        model="../shared/models/minilm-sst2",
        data="../shared/data/sst2/validation.jsonl",
        n_texts=200,
        metrics=MEASURES,
        rows=rows,
        curves=curves,
        examples=_examples(generator),
        protocol=[
            "Each method explains the class that the model predicts for a text.",
            "Tokens are taken away by deleting them; thresholds are 1, 5, 10, 20 and 50 % of the "
            "tokens, at least one, and the mean goes over the thresholds.",
            "Intervals are 95 % bootstrap intervals over texts and seeds.",
        ],
        settings={"preset": "default", "limit": 200, "seeds": [0, 1, 2], "batch_size": 32},
        versions={"captum_aml": "0.1.0", "torch": "2.9.0", "captum": "0.9.0"},
        fingerprints={"model": "9f2c" * 8, "data": "71ab" * 8},
        notes=["`attention` was left out: the model gives no attentions."],
    )
