"""Training: losses, the two players' steps, the loop around them, and what it leaves on disk."""
