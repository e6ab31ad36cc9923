"""What the lab's packages are made of."""
