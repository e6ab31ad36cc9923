"""Chaos: the engine in processes of its own, killed, stopped and misled by seeded schedules, judged on its targets."""
