"""Fitted selectors as torch modules: (B, D) features in, (B, M) scores out."""

from gpu_select.selectors.base import Choice, Selector, choose
from gpu_select.selectors.kmeans import KMeansSelector
from gpu_select.selectors.knn import KNNSelector
from gpu_select.selectors.knn_search import Backend
from gpu_select.selectors.mlp import BatchNorm, Linear, MLPSelector, ReLU
from gpu_select.selectors.svm import LinearPart, RBFPart, SVMSelector

__all__ = [
    "Backend",
    "BatchNorm",
    "Choice",
    "KMeansSelector",
    "KNNSelector",
    "Linear",
    "LinearPart",
    "MLPSelector",
    "RBFPart",
    "ReLU",
    "SVMSelector",
    "Selector",
    "choose",
]
