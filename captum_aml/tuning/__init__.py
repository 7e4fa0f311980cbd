"""Tuning for given instances, all instances of a batch at once: of their masks, or of the masker.

Every example has its own parameters, its own loss and its own best step, so that its result does
not depend on the others.
"""

from captum_aml.tuning.mask import MaskLogits, TuningResult, descend
from captum_aml.tuning.masker import MaskerWeights

__all__ = ["MaskLogits", "MaskerWeights", "TuningResult", "descend"]
