"""Differentiable building blocks shared by every generator and discriminator."""
