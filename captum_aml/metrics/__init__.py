"""Metrics of attributions: how faithful, how plausible, how complex they are.

Called as ``captum.metrics`` are: a forward function, inputs, attributions, baselines, further
arguments and target go in, and one value per example comes out. Every docstring says which
direction is better.
"""

from importlib import import_module
from pkgutil import iter_modules

from captum.metrics import infidelity, sensitivity_max

from captum_aml.metrics.complexity import effective_tokens, entropy
from captum_aml.metrics.conventions import PRESETS, Convention
from captum_aml.metrics.curves import (
    CurveOptions,
    area_under_curve,
    deletion_curve,
    insertion_curve,
)
from captum_aml.metrics.evaluation import RemovalEvaluator
from captum_aml.metrics.faithfulness import RemovalOptions, comprehensiveness, log_odds, sufficiency
from captum_aml.metrics.limits import AOPCLimits, LimitSearch, aopc_limits, normalized_aopc
from captum_aml.metrics.plausibility import (
    auprc,
    average_precision,
    iou_f1,
    rationale_labels,
    rationale_spans,
    recall_at_k,
    token_f1,
)
from captum_aml.metrics.randomization import parameter_randomization
from captum_aml.metrics.registry import (
    BoundMetric,
    Metric,
    MetricInputs,
    available_metrics,
    default_metrics,
    metric_of,
    register_metric,
)
from captum_aml.metrics.removal import Removal
from captum_aml.metrics.scoring import EvaluationOptions
from captum_aml.metrics.soft import SoftOptions, soft_comprehensiveness, soft_sufficiency

# A module of this package registers its metrics where it is imported.
for _module in iter_modules(__path__, prefix=f"{__name__}."):
    import_module(_module.name)

__all__ = [
    "PRESETS",
    "AOPCLimits",
    "BoundMetric",
    "Convention",
    "CurveOptions",
    "EvaluationOptions",
    "LimitSearch",
    "Metric",
    "MetricInputs",
    "Removal",
    "RemovalEvaluator",
    "RemovalOptions",
    "SoftOptions",
    "aopc_limits",
    "area_under_curve",
    "auprc",
    "available_metrics",
    "average_precision",
    "comprehensiveness",
    "default_metrics",
    "deletion_curve",
    "effective_tokens",
    "entropy",
    "infidelity",
    "insertion_curve",
    "iou_f1",
    "log_odds",
    "metric_of",
    "normalized_aopc",
    "parameter_randomization",
    "rationale_labels",
    "rationale_spans",
    "recall_at_k",
    "register_metric",
    "sensitivity_max",
    "soft_comprehensiveness",
    "soft_sufficiency",
    "sufficiency",
    "token_f1",
]
