"""Timetables: when the runs of a policy begin."""
