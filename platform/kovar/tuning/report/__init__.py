"""What a sweep found: ranked trials, statistics, a recommendation, pictures, a page."""

from kovar.tuning.report.analysis import Analysis, analyze
from kovar.tuning.report.configuration import Configuration, Spread, configurations_of
from kovar.tuning.report.facts import SweepFacts, facts_of
from kovar.tuning.report.files import BOARD, write_report
from kovar.tuning.report.live_board import LiveBoard
from kovar.tuning.report.recommendation import Recommendation
from kovar.tuning.report.results import read_results, results_json
from kovar.tuning.report.significance import Rival
from kovar.tuning.report.sweep_report import SweepReport

__all__ = [
    "BOARD",
    "Analysis",
    "Configuration",
    "LiveBoard",
    "Recommendation",
    "Rival",
    "Spread",
    "SweepFacts",
    "SweepReport",
    "analyze",
    "configurations_of",
    "facts_of",
    "read_results",
    "results_json",
    "write_report",
]
