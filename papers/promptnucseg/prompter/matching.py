"""One-to-one matching of predictions and nuclei (PromptNucSeg, arXiv:2311.15939, section 3.1)."""

import torch
from torch import Tensor

from shared.errors import UserError


@torch.no_grad()
def match(points: Tensor, logits: Tensor, nuclei: Tensor, classes: Tensor, distance_weight: float) -> Tensor:
    """Which prediction each nucleus gets: (B, N) int64 indices into the M predictions, -1 for none.

    The matching maximises the sum of w_ij = q_i(c_j) - alpha |a_i - b_j|, with q the softmax of the logits, over all
    one-to-one matchings of as many pairs as there can be. points: (B, M, 2), logits: (B, M, C + 1); nuclei: (B, N, 2),
    classes: (B, N) int64, -1 where a row has fewer nuclei. Raises UserError if a prediction is not finite.
    """
    from scipy.optimize import linear_sum_assignment

    probabilities = logits.softmax(-1)
    at_class = probabilities.gather(2, classes.clamp(min=0)[:, None].expand(-1, logits.shape[1], -1))
    weights = (at_class - distance_weight * torch.cdist(points, nuclei)).cpu().double()
    if not weights.isfinite().all():
        raise UserError(
            "the prompter's predictions are no longer finite: its training diverges; lower the learning rate"
        )
    present = (classes >= 0).cpu()
    matched = torch.full(classes.shape, -1, dtype=torch.int64)
    for index, (weight, chosen) in enumerate(zip(weights, present, strict=True)):
        columns = chosen.nonzero()[:, 0]
        rows, picked = linear_sum_assignment(weight[:, columns].numpy(), maximize=True)
        matched[index, columns[torch.from_numpy(picked)]] = torch.from_numpy(rows)
    return matched.to(classes.device)
