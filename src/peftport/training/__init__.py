"""Training and testing of modules on a host, many lanes at once."""

from peftport.metrics import Evaluation, measure
from peftport.training.evaluate import evaluate, evaluate_one, scores
from peftport.training.readout import (
    ClassReadout,
    Readout,
    class_logits,
    class_readout,
    readout_of,
)
from peftport.training.trajectory import Reading, TrainingSettings, trajectory

__all__ = [
    "ClassReadout",
    "Evaluation",
    "Reading",
    "Readout",
    "TrainingSettings",
    "class_logits",
    "class_readout",
    "evaluate",
    "evaluate_one",
    "measure",
    "readout_of",
    "scores",
    "trajectory",
]
