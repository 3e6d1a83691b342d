"""Lightning callbacks: what watches a team from outside."""

from callbacks.evaluation import Evaluation
from callbacks.final_report import final_report
from callbacks.video import Video

__all__ = ["Evaluation", "Video", "final_report"]
