"""Cross-attention probabilities of a U-Net's forward pass, for the losses and rules that look at them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from shared.diffusion.erasers.modules import cross_attentions

Hook = Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]


@contextmanager
def captured_attention(unet: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Fills a dict with every cross-attention's probabilities (B, heads, h*w, L) while the U-Net runs.

    They are computed beside the fused attention, from its queries and keys, so that the forward pass stays as it is.
    """
    found: dict[str, Tensor] = {}
    queries: dict[str, Tensor] = {}

    def keep_query(name: str) -> Hook:
        return lambda _module, _inputs, output: queries.__setitem__(name, output)

    def keep_probabilities(name: str, attention: Any) -> Hook:
        def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], keys: Tensor) -> None:
            query, key = (attention.head_to_batch_dim(x) for x in (queries.pop(name), keys))
            scores = attention.get_attention_scores(query, key)
            found[name] = scores.unflatten(0, (-1, attention.heads))

        return hook

    handles = []
    for name, attention in cross_attentions(unet).items():
        handles.append(attention.to_q.register_forward_hook(keep_query(name)))
        handles.append(attention.to_k.register_forward_hook(keep_probabilities(name, attention)))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
