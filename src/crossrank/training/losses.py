"""From the scores and labels of one query's documents to a number to be made small. Needs the extra `train`."""

from __future__ import annotations

from collections.abc import Callable

from crossrank.extras import require

require("torch", extra="train")
import torch  # noqa: E402
from torch.nn import functional  # noqa: E402

# Keeps logits near log-odds beside a loss that only knows their order, so that they can be calibrated (LOG.md).
POINTWISE = 0.2

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def bce(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Binary cross entropy of each document. `labels` are 0 to 1; grades are shares of the highest.

    >>> round(float(bce(torch.zeros(2), torch.tensor([1.0, 0.0]))), 4)
    0.6931
    """
    return functional.binary_cross_entropy_with_logits(scores, labels)


def listwise(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy of the softmax over documents (ListNet, Cao et al. 2007), with a little `bce`.

    >>> worse = listwise(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]))
    >>> bool(listwise(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.0])) < worse)
    True
    """
    target = labels / labels.sum().clamp(min=1e-6)
    return -(target * functional.log_softmax(scores, 0)).sum() + POINTWISE * bce(scores, labels)


def lambda_loss(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Logistic loss of each pair in the wrong or right order, weighted by what swapping it changes in nDCG, with `bce`.

    Source: LambdaRank as a loss, Wang et al. 2018, "The LambdaLoss framework", equation 17. Gains are the labels.

    >>> right = lambda_loss(torch.tensor([2.0, 1.0, 0.0]), torch.tensor([1.0, 0.5, 0.0]))
    >>> bool(right < lambda_loss(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([1.0, 0.5, 0.0])))
    True
    """
    ranks = torch.empty_like(scores)
    ranks[torch.argsort(scores.detach(), descending=True)] = torch.arange(1, len(scores) + 1, dtype=scores.dtype)
    discounts = 1 / torch.log2(1 + ranks)
    ideal = (torch.sort(labels, descending=True).values / torch.log2(torch.arange(2, len(labels) + 2))).sum()
    more = (labels[:, None] > labels[None]).float()
    weight = more * (labels[:, None] - labels[None]) * (discounts[:, None] - discounts[None]).abs()
    each = functional.softplus(scores[None] - scores[:, None])
    return (weight * each).sum() / ideal.clamp(min=1e-6) + POINTWISE * bce(scores, labels)


def margin_mse(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Squared error of the differences between documents. Source: Hofstätter et al. 2020, "Margin-MSE".

    >>> float(margin_mse(torch.tensor([3.0, 1.0]), torch.tensor([7.0, 5.0])))
    0.0
    """
    left, right = torch.triu_indices(len(scores), len(scores), 1)
    return ((scores[left] - scores[right]) - (labels[left] - labels[right])).square().mean()


def distil(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Kullback-Leibler divergence from the teacher's softmax over documents, with a little `margin_mse`.

    >>> float(distil(torch.tensor([3.0, 1.0]), torch.tensor([7.0, 5.0])))
    0.0
    """
    teacher = functional.log_softmax(labels, 0)
    divergence = functional.kl_div(functional.log_softmax(scores, 0), teacher, reduction="sum", log_target=True)
    return divergence + 0.05 * margin_mse(scores, labels)


LOSSES: dict[str, Loss] = {
    "bce": bce,
    "listwise": listwise,
    "lambda": lambda_loss,
    "margin-mse": margin_mse,
    "distil": distil,
}
