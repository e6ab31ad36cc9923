"""Reports: what changed where and when, approved by whom, and what was measured."""
