"""Training and testing of modules on a host, many lanes at once."""

from peftport.metrics import Evaluation, measure
from peftport.training.evaluate import evaluate, evaluate_one, scores
from peftport.training.readout import Readout, class_logits, readout_of
from peftport.training.trajectory import Reading, Settings, trajectory

__all__ = [
    "Evaluation",
    "Reading",
    "Readout",
    "Settings",
    "class_logits",
    "evaluate",
    "evaluate_one",
    "measure",
    "readout_of",
    "scores",
    "trajectory",
]
