"""
A torch network to LLM.int8() (Dettmers et al. 2022), through bitsandbytes, for a study in torch.

Int8 products with a scale per activation row and weight column, as those of build/quantize.py are;
columns of activations that hold an outlier are multiplied apart, in float. Not for serving: a
column is taken out for the whole batch, so that a stranger's text moves an answer.
"""

from __future__ import annotations

import logging
from typing import Any

from torch import nn

from build.errors import BuildError

THRESHOLD = 6.0  # the paper's: activations beyond it are outliers
HEAD = "classifier"


def to_llm_int8(network: Any, *, threshold: float = THRESHOLD) -> Any:
    """
    Replace every linear layer but the head's by its LLM.int8() form, in place; gives it back.

    The network must be a float one on the device it will run on. Raises BuildError where
    bitsandbytes is missing, where the threshold is not positive (bitsandbytes then has no
    outliers), and where no float linear layers are left.
    """
    if not threshold > 0:
        raise BuildError(f"outliers are activations beyond a positive number, not {threshold}")
    try:
        from bitsandbytes.nn import Linear8bitLt
    except ImportError as error:
        raise BuildError(
            "LLM.int8() needs bitsandbytes: pip install -r requirements/bitsandbytes.txt"
        ) from error
    # It says once a product that float32 activations are rounded to 16 bits before they are to 8.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    found = [name for name, each in network.named_modules() if _is_inside(name, each)]
    if not found:
        raise BuildError("the network has no float linear layers left")
    for name in found:
        around, _, last = name.rpartition(".")
        float_layer = network.get_submodule(name)
        int8 = Linear8bitLt(
            float_layer.in_features,
            float_layer.out_features,
            bias=float_layer.bias is not None,
            has_fp16_weights=False,
            threshold=threshold,
        )
        int8.load_state_dict(float_layer.state_dict())
        setattr(network.get_submodule(around), last, int8.to(float_layer.weight.device))
    return network.eval()  # in training it would multiply floats


def stored_bytes(network: Any) -> int:
    """Of all weights, and of the scales of int8 ones: a float32 a column."""
    weights: int = sum(each.numel() * each.element_size() for each in network.parameters())
    scales: int = sum(
        4 * each.out_features for each in network.modules() if type(each).__name__ == "Linear8bitLt"
    )
    return weights + scales


def _is_inside(name: str, module: Any) -> bool:
    return type(module) is nn.Linear and not name.split(".")[0].startswith(HEAD)
