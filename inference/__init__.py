"""Using a trained generator: checkpoints, views of latents, pictures and videos on disk."""
