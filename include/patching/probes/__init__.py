"""Probes: questions to one target whose answer is yes, no, or nobody knows."""
