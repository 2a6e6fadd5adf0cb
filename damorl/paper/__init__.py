"""The paper's experiments (arXiv 2502.00850): which runs each needs, what is measured on them, and the pictures."""
