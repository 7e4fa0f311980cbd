"""Naive references: plain loops over Python numbers, slow and easy to check by eye."""

from __future__ import annotations

import math
from collections.abc import Sequence

Row = Sequence[float]


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def blend(m: float, x: float, b: float) -> float:
    """One element: a share m of the input, the rest of the baseline."""
    return m * x + (1 - m) * b


def aml_loss(
    logits: Row,
    x: Row,
    b: Row,
    weights: Row,
    bias: float,
    *,
    target_class: int,
    maskable: Sequence[bool],
    term_weights: tuple[float, float, float],
    eps: float,
) -> tuple[tuple[float, float, float, float], list[float]]:
    """AML's loss for one example of LinearLogits, with its gradient worked out by hand.

    Returns:
        The terms (total, prediction, inverse, size) and the derivative by each mask logit.
    """
    w_prediction, w_inverse, w_size = term_weights
    mask = [sigmoid(t) if alive else 1.0 for t, alive in zip(logits, maskable, strict=True)]
    n_maskable = max(1, sum(maskable))

    q1 = sigmoid(bias + sum(w * xi for w, xi in zip(weights, x, strict=True)))
    predicted = 1 if q1 > 0.5 else 0
    aim1 = q1 if predicted == target_class else float(target_class)

    z_kept, z_out = bias, bias
    for i, w in enumerate(weights):
        out = 1 - mask[i] if maskable[i] else 1.0
        z_kept += w * blend(mask[i], x[i], b[i])
        z_out += w * blend(out, x[i], b[i])

    p_kept = sigmoid(z_kept)
    prediction = -(aim1 * math.log(p_kept) + (1 - aim1) * math.log(sigmoid(-z_kept)))
    # P(target_class) for what is left out, and for everything else.
    sign = 1.0 if target_class == 1 else -1.0
    p_out, p_rest = sigmoid(sign * z_out), sigmoid(-sign * z_out)
    inverse = -math.log(p_rest + eps)
    size = sum(-math.log(1 - mask[i]) for i in range(len(x)) if maskable[i]) / n_maskable

    d_prediction = p_kept - aim1  # by z_kept
    d_inverse = sign * p_out * p_rest / (p_rest + eps)  # by z_out
    gradient = []
    for i, w in enumerate(weights):
        if not maskable[i]:
            gradient.append(0.0)
            continue
        slope = w * (x[i] - b[i])
        by_mask = (
            w_prediction * d_prediction * slope
            - w_inverse * d_inverse * slope
            + w_size / (n_maskable * (1 - mask[i]))
        )
        gradient.append(by_mask * mask[i] * (1 - mask[i]))
    total = w_prediction * prediction + w_inverse * inverse + w_size * size
    return (total, prediction, inverse, size), gradient


def tune_one(
    logits: Row,
    loss: object,
    *,
    n_steps: int,
    learning_rate: float,
) -> tuple[list[float], tuple[float, ...], int]:
    """Adam (betas 0.9 and 0.99, eps 1e-8) with a linearly falling rate, for one example.

    Args:
        logits: Where to start.
        loss: Maps logits to the terms, total first, and the gradient.
        n_steps: The number of steps.
        learning_rate: The rate at the first step.

    Returns:
        The mask with the lowest total, its terms and the step it was found at.
    """
    assert callable(loss)
    current = list(logits)
    first, second = [0.0] * len(current), [0.0] * len(current)
    best: tuple[list[float], tuple[float, ...], int] | None = None
    for step in range(n_steps + 1):
        terms, gradient = loss(current)
        if best is None or terms[0] < best[1][0]:
            best = ([sigmoid(t) for t in current], terms, step)
        if step == n_steps:
            break
        rate = learning_rate * (1 - step / n_steps)
        for i, g in enumerate(gradient):
            first[i] = 0.9 * first[i] + 0.1 * g
            second[i] = 0.99 * second[i] + 0.01 * g * g
            mean = first[i] / (1 - 0.9 ** (step + 1))
            spread = second[i] / (1 - 0.99 ** (step + 1))
            current[i] -= rate * mean / (math.sqrt(spread) + 1e-8)
    assert best is not None
    return best
