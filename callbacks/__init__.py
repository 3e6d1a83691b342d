"""Lightning callbacks: what watches a team from outside."""

from callbacks.evaluation import Evaluation

__all__ = ["Evaluation"]
