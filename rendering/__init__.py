"""Cameras, rays, samples, compositing: from a radiance field and a camera to a picture."""
