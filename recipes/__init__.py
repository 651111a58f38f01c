"""Curricula that are functions: what they hold follows from the size of pictures and batches."""
