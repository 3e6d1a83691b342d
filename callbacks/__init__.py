"""Lightning callbacks: what watches a team from outside."""

from callbacks.evaluation import Evaluation
from callbacks.report import final_report

__all__ = ["Evaluation", "final_report"]
