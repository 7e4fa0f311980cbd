r"""The objective of Attributive Masking Learning (AML).

.. math::
    \ell(m) = w_p \Bigl(-\sum_c q_c \log p_c(x[m])\Bigr)
            + w_i \bigl(-\log(1 - p_c(x[1-m]) + \epsilon)\bigr)
            + w_s \frac{1}{U} \sum_u -\log(1 - m_u)

with :math:`p = \mathrm{softmax}\, f`, :math:`q` the distribution to preserve (``aim``), :math:`c`
the target class, :math:`U` the number of maskable units; ``size_penalty="l1"`` has
:math:`m_u` in place of :math:`-\log(1 - m_u)`.

Source: Barkan et al., "LLM Explainability via Attributive Masking Learning", Findings of EMNLP
2024. Deviations: the terms are means over the maskable units and are kept for each example; where
the target class is not the predicted one, ``aim`` is that class rather than the prediction.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from torch import Tensor

from captum_aml.objectives._base import (
    MaskedOutcome,
    SizePenalty,
    Terms,
    check_objective,
    inverse_term,
    prediction_term,
    size_term,
)


@dataclass(frozen=True, kw_only=True)
class AMLObjective:
    """AML's three terms and their weights.

    Args:
        prediction_weight: Weight of the prediction term. Default: 1.0
        inverse_weight: Weight of the inverse term. Default: 1.0
        size_weight: Weight of the mask-size term. Default: 1.0
        size_penalty: ``bce`` (published) or ``l1``. Default: ``bce``
        eps: The constant under the inverse term's logarithm. Default: 1e-6

    Raises:
        InvalidInputError: A weight is negative or not finite, or the penalty is unknown.
    """

    prediction_weight: float = 1.0
    inverse_weight: float = 1.0
    size_weight: float = 1.0
    size_penalty: SizePenalty = "bce"
    eps: float = 1e-6

    def __post_init__(self) -> None:
        weights = {k: v for k, v in asdict(self).items() if k.endswith("_weight")}
        check_objective(weights, self.size_penalty, self.eps)

    @property
    def uses_kept(self) -> bool:
        """True: the prediction term reads ``x[m]``."""
        return True

    @property
    def uses_complement(self) -> bool:
        """True: the inverse term reads ``x[1 - m]``."""
        return True

    def log_odds(self, log_p: Tensor, log_rest: Tensor) -> Tensor:
        r""":math:`w_p \log p_c - w_i \log(1 - p_c)`, of which a mask's two passes are the halves.

        With equal weights the log-odds of the target class, times the weight.

        Args:
            log_p: :math:`\log p_c`, (M,).
            log_rest: :math:`\log(1 - p_c)`, (M,).
        """
        return self.prediction_weight * log_p - self.inverse_weight * log_rest

    def __call__(self, outcome: MaskedOutcome) -> Terms:
        """The terms ``prediction``, ``inverse`` and ``size``, each (N,), and their weighted sum."""
        assert outcome.kept is not None
        assert outcome.complement is not None
        prediction = prediction_term(outcome.kept, outcome.aim)
        inverse = inverse_term(outcome.complement, outcome.target_class, eps=self.eps)
        size = size_term(outcome.mask, outcome.maskable, self.size_penalty)
        total = (
            self.prediction_weight * prediction
            + self.inverse_weight * inverse
            + self.size_weight * size
        )
        return Terms(total, {"prediction": prediction, "inverse": inverse, "size": size})
