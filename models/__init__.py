"""What a variant is and how to run one. Knows nothing of HTTP; torch only in runtime_torch.py."""

import os

# From 1.29 on onnxruntime tells Microsoft of every model that it opens, with a number kept for the
# machine, unless this is set before it is imported. Nothing here tells anybody anything.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
