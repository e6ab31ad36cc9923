"""Assessment: advisories meet snapshots and become ranked findings."""
