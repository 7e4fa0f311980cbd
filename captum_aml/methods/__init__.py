"""Attribution methods by name, each giving one score per token.

``create("integrated-gradients", forward_func, embedding_layer)`` gives a callable
``(ids, baselines, target=..., additional_forward_args=...) -> scores (N, L)``. ``output=`` says
what the forward function gives. The learned methods explain this number itself at the target; all
others the same probability: the softmax of ``logits``, the sigmoid of ``independent_logits``, whose
classes are labels, or ``log_odds`` or a ``value`` as they are. What they leave alone is the same
too: positions whose id equals the baseline id score 0. A ``feature_mask=`` groups tokens: to words,
sentences, or whatever should have one score. :func:`each_target` explains several targets of each
text, and shares the passes of the model where the method can.

An example's scores depend neither on the rest of its batch nor on padding, a seed gives the same
scores again, and the global random state is left as it was. Users add their own with ``register``.
"""

from importlib import import_module
from pkgutil import iter_modules

from captum_aml.methods.adapter import each_target
from captum_aml.methods.instances import AttributionMethod, score_meaning
from captum_aml.methods.registry import (
    Factory,
    Family,
    MaskerLike,
    MethodOptions,
    MethodOutput,
    MethodSpec,
    ScoreMeaning,
    Setting,
    TokenMethod,
    available,
    create,
    register,
    spec,
)

# A module of this package registers its methods where it is imported.
for _module in iter_modules(__path__, prefix=f"{__name__}."):
    import_module(_module.name)

__all__ = [
    "AttributionMethod",
    "Factory",
    "Family",
    "MaskerLike",
    "MethodOptions",
    "MethodOutput",
    "MethodSpec",
    "ScoreMeaning",
    "Setting",
    "TokenMethod",
    "available",
    "create",
    "each_target",
    "register",
    "score_meaning",
    "spec",
]
