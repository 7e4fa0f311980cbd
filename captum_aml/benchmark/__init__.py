"""A comparison of attribution methods on a model and data of the user's own.

``run_benchmark`` explains texts with every method, scores the explanations by every metric, and
writes a report; ``captum-aml benchmark`` does the same from the command line.
"""

from typing import TYPE_CHECKING

from captum_aml._utils.lazy import lazy_names

if TYPE_CHECKING:
    from captum_aml.benchmark.report import results_from_json, results_to_json, write_report
    from captum_aml.benchmark.results import BenchmarkResults
    from captum_aml.benchmark.run import run_benchmark
    from captum_aml.benchmark.settings import BenchmarkSettings

__getattr__, __dir__ = lazy_names(__name__)

__all__ = [
    "BenchmarkResults",
    "BenchmarkSettings",
    "results_from_json",
    "results_to_json",
    "run_benchmark",
    "write_report",
]
