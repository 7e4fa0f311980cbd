"""A comparison of attribution methods on a model and data of the user's own.

``run_benchmark`` explains texts with every method, scores the explanations by every metric, and
writes a report; ``captum-aml benchmark`` does the same from the command line.
"""

from captum_aml.benchmark.report import results_from_json, results_to_json, write_report
from captum_aml.benchmark.results import BenchmarkResults
from captum_aml.benchmark.run import run_benchmark
from captum_aml.benchmark.settings import BenchmarkSettings

__all__ = [
    "BenchmarkResults",
    "BenchmarkSettings",
    "results_from_json",
    "results_to_json",
    "run_benchmark",
    "write_report",
]
