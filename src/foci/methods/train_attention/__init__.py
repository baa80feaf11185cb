"""Train-Attention (arXiv 2407.16920): how much each token counts, as a trained model says."""

from foci.methods.train_attention.method import TrainAttention

__all__ = ["TrainAttention"]
