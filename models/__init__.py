"""What a variant is and how to run one. Knows nothing of HTTP; torch only in runtime_torch.py."""
