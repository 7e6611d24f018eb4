"""What-if on a log: shares, cost and expected quality of the models under policies that were never run."""

from gpu_select.replay.costs import Costs
from gpu_select.replay.document import Nearest, Replay, replay
from gpu_select.replay.expected import ExpectedOutcomes, SelfCheck
from gpu_select.replay.limits import Limits
from gpu_select.replay.log import ReplayedLog, read_replayed
from gpu_select.replay.outcomes import Agreement
from gpu_select.replay.policies import DomainRow, ModelRow, Policy
from gpu_select.replay.sweep import SweepPoint

__all__ = [
    "Agreement",
    "Costs",
    "DomainRow",
    "ExpectedOutcomes",
    "Limits",
    "ModelRow",
    "Nearest",
    "Policy",
    "Replay",
    "ReplayedLog",
    "SelfCheck",
    "SweepPoint",
    "read_replayed",
    "replay",
]
