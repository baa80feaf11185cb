"""Train-Attention (arXiv 2407.16920): a trained model gives each token a weight."""

from foci.methods.train_attention.method import TrainAttention

__all__ = ["TrainAttention"]
