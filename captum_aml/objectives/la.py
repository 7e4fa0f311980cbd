r"""The objective of Learning Attributions (LA).

.. math::
    \ell(m) = w_i \bigl(-\log(1 - p_c(x[1-m]) + \epsilon)\bigr)
            + w_s \frac{1}{U} \sum_u -\log(1 - m_u)

with :math:`p = \mathrm{softmax}\, f`, :math:`c` the target class and :math:`U` the number of
maskable units. The mask marks what to remove: as little as is needed for the model's output to
change.

Source: Barkan et al., "A Learning-based Approach for Explaining Language Models", CIKM 2024. This
follows the paper's abstract (a model trained to mask the minimal amount of information necessary to
change the output substantially); its exact loss was not at hand.
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
    size_term,
)


@dataclass(frozen=True, kw_only=True)
class LAObjective:
    """LA's two terms and their weights.

    Args:
        inverse_weight: Weight of the inverse term. Default: 1.0
        size_weight: Weight of the mask-size term. Default: 1.0
        size_penalty: ``bce`` or ``l1``. Default: ``bce``
        eps: The constant under the inverse term's logarithm. Default: 1e-6

    Raises:
        InvalidInputError: A weight is negative or not finite, or the penalty is unknown.
    """

    inverse_weight: float = 1.0
    size_weight: float = 1.0
    size_penalty: SizePenalty = "bce"
    eps: float = 1e-6

    def __post_init__(self) -> None:
        weights = {k: v for k, v in asdict(self).items() if k.endswith("_weight")}
        check_objective(weights, self.size_penalty, self.eps)

    @property
    def uses_kept(self) -> bool:
        """False: what is kept plays no part, which saves its pass."""
        return False

    @property
    def uses_complement(self) -> bool:
        """True: the inverse term reads ``x[1 - m]``."""
        return True

    def log_odds(self, log_p: Tensor, log_rest: Tensor) -> Tensor:
        r""":math:`-w_i \log(1 - p_c)`: of the log-odds the half that this objective has.

        Args:
            log_p: :math:`\log p_c`, (M,); plays no part.
            log_rest: :math:`\log(1 - p_c)`, (M,).
        """
        return -self.inverse_weight * log_rest

    def __call__(self, outcome: MaskedOutcome) -> Terms:
        """The terms ``inverse`` and ``size``, each (N,), and their weighted sum."""
        assert outcome.complement is not None
        inverse = inverse_term(outcome.complement, outcome.target_class, eps=self.eps)
        size = size_term(outcome.mask, outcome.maskable, self.size_penalty)
        total = self.inverse_weight * inverse + self.size_weight * size
        return Terms(total, {"inverse": inverse, "size": size})
