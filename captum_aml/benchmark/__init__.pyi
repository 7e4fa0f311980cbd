from .report import results_from_json, results_to_json, write_report
from .results import BenchmarkResults
from .run import run_benchmark
from .settings import BenchmarkSettings

__all__ = [
    "BenchmarkResults",
    "BenchmarkSettings",
    "results_from_json",
    "results_to_json",
    "run_benchmark",
    "write_report",
]
