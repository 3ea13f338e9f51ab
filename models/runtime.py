"""
How a variant's weights are opened. Knows no engine until one is asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from models.errors import BrokenVariant
from models.session import Session, SessionOptions
from models.spec import Runtime, Variant


def open_session(variant: Variant, folder: Path, options: SessionOptions) -> Session:
    """
    Load the variant's weights.

    Raises `BrokenVariant` where they do not load, or torch or OpenVINO is asked for and not
    installed; `BadSetting` where the host lacks the provider.
    """
    session: Any
    match variant.runtime:
        case Runtime.ONNX:
            from models.runtime_onnx import OnnxSession as session
        case Runtime.TORCH:
            try:
                from models.runtime_torch import TorchSession as session
            except ImportError as error:
                raise BrokenVariant(
                    f"this is a torch variant and {error.name} is missing: "
                    "pip install -r requirements/build.txt, or export the variant to ONNX"
                ) from error
        case Runtime.OPENVINO:
            from models.runtime_openvino import OpenvinoSession as session
    opened: Session = session(variant, folder, options)
    return opened
