"""A comparison of attribution methods on a model and data of the user's own.

``run_benchmark`` explains texts with every method, scores the explanations by every measure, and
writes a report; ``captum-aml benchmark`` does the same from the command line.
"""

from captum_aml.benchmark.measures import (
    MeasureSpec,
    available_measures,
    default_measures,
    register_measure,
)
from captum_aml.benchmark.report import results_from_json, results_to_json, write_report
from captum_aml.benchmark.results import BenchmarkResults, Measure
from captum_aml.benchmark.running import run_benchmark
from captum_aml.benchmark.scoring import Search
from captum_aml.benchmark.settings import BenchmarkSettings

__all__ = [
    "BenchmarkResults",
    "BenchmarkSettings",
    "Measure",
    "MeasureSpec",
    "Search",
    "available_measures",
    "default_measures",
    "register_measure",
    "results_from_json",
    "results_to_json",
    "run_benchmark",
    "write_report",
]
