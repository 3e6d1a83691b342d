"""Lightning callbacks for evaluation and videos, and the final report of a run."""

from callbacks.evaluation import Evaluation
from callbacks.final_report import final_report
from callbacks.video import Video

__all__ = ["Evaluation", "Video", "final_report"]
