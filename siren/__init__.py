"""FiLM-conditioned sinusoidal networks: pi-GAN's radiance fields and their mapping network."""
