from .gradient import UnitEffects, mask_gradient
from .mask import MaskLogits, TuningResult, descend
from .masker import MaskerWeights

__all__ = [
    "MaskLogits",
    "MaskerWeights",
    "TuningResult",
    "UnitEffects",
    "descend",
    "mask_gradient",
]
