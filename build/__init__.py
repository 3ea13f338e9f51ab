"""Making variants: train, compress, judge, publish. `python -m build --list` shows the recipes."""

import models  # noqa: F401 (before onnxruntime, which it keeps from telling of what is opened)
