"""The member of n-grams as torch computes it, from what its coefficients multiply.

Sizes: ``n`` texts, ``B`` rows of a batch, ``R`` regressions of a model, ``C`` outputs.
"""

import numpy as np
import torch
from scipy import sparse
from sklearn.ensemble import VotingClassifier
from sklearn.pipeline import Pipeline
from torch import Tensor

from sklstm.ngrams.label_sets import LinearLabelSets
from sklstm.ngrams.ridge import ValidatedRidge
from sklstm.ngrams.updating import list_models
from sklstm.tasks.protocol import SMALLEST_PROBABILITY, Task


class DifferentiableMember:
    """A fitted member of n-grams whose outputs can be differentiated.

    Its models are linear before a softmax or a logistic function, so that all it needs of a text is
    one product of features and coefficients for each regression.

    Parameters
    ----------
    member : Pipeline
        What ``blend='ngrams'`` has fitted.
    task : Task
        What y is.
    """

    def __init__(self, member: Pipeline, task: Task):
        self.ngrams, self.linear = (step for _, step in member.steps)
        self.task = task
        self.models = list_models(self.linear)

    def read(self, texts: list[str]) -> list[sparse.csr_array]:
        """Return the features (n, n_features) of texts, as each of the models sees them."""
        features = self.ngrams.transform(texts)
        return [sparse.csr_array(model.see(features)) for model in self.models]

    def multiply(self, features: list[sparse.csr_array]) -> list[np.ndarray]:
        """Return the products (n, R) of features and coefficients, of each model."""
        return [seen @ model.arrays[0].T for seen, model in zip(features, self.models, strict=True)]

    def outputs(self, products: list[Tensor]) -> Tensor:
        """Return the outputs (B, C) from the products (B, R) of each model, as ``ask_member``."""
        odds = [
            product + torch.as_tensor(model.arrays[1], device=product.device)
            for product, model in zip(products, self.models, strict=True)
        ]
        return OUTPUTS[type(self.linear)](odds, self.linear, self.task)

    def share_out(
        self,
        features: list[sparse.csr_array],  # of ``read``
        slopes: list[np.ndarray],  # (n, R) derivatives by the products
    ) -> sparse.csr_array:
        """Return what each feature contributes, (n, n_features): feature x coefficient x slope."""
        data = np.zeros(len(features[0].indices))
        for seen, slope, model in zip(features, slopes, self.models, strict=True):
            coef = model.arrays[0]
            # Text by text, since slopes @ coef of all would be dense.
            for begin, end, of_text in zip(seen.indptr, seen.indptr[1:], slope, strict=False):
                columns = seen.indices[begin:end]
                data[begin:end] += seen.data[begin:end] * (of_text @ coef[:, columns])
        first = features[0]
        return sparse.csr_array((data, first.indices, first.indptr), shape=first.shape)


def _of_classes(odds: list[Tensor], linear, task: Task) -> Tensor:
    """Return the log-probabilities of the mean of both models, as ``Multiclass.read_response``."""
    of_values, of_marks = odds
    if len(linear.classes_) == 2:
        yes = (of_values.sigmoid() + of_marks.sigmoid()) / 2
        shares = torch.cat([1 - yes, yes], dim=1)
    else:
        apart = of_marks.sigmoid().clamp(min=np.finfo(np.float64).tiny)
        shares = (of_values.softmax(dim=1) + apart / apart.sum(dim=1, keepdim=True)) / 2
    columns = torch.as_tensor(np.searchsorted(task.classes, linear.classes_), device=shares.device)
    smallest = np.log(SMALLEST_PROBABILITY)
    outputs = shares.new_full((len(shares), task.n_outputs), smallest)
    return outputs.index_copy(1, columns, shares.clamp(min=SMALLEST_PROBABILITY).log())


def _of_label_sets(odds: list[Tensor], linear, task: Task) -> Tensor:
    """Return the log-odds of the mean of both models, as ``Multilabel.read_response``."""
    yes = (odds[0].sigmoid() + odds[1].sigmoid()) / 2
    yes = yes.clamp(SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    return yes.log() - (-yes).log1p()


def _of_numbers(odds: list[Tensor], linear, task: Task) -> Tensor:
    """Return the standardised numbers, as ``Regression.read_response``."""

    def like(array):
        return torch.as_tensor(array, device=odds[0].device)

    numbers = odds[0] * like(linear.scale_) + like(linear.mean_)
    scale = np.where(task.scale > 0, task.scale, 1.0)
    return (numbers - like(task.mean)) / like(scale)


OUTPUTS = {
    VotingClassifier: _of_classes,
    LinearLabelSets: _of_label_sets,
    ValidatedRidge: _of_numbers,
}
