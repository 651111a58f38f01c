"""Measuring pictures: images in, numbers out."""
