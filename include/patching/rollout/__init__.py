"""A rollout being carried out: discovery, planning, gates, change jobs, judging, undo."""
