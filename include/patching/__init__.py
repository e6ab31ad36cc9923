"""Managed patching: the domain that decides what to patch, when, how far and when to stop.

It has no Airflow and no clock: values go in, values with reasons come out. Only ``channels``, ``sources`` and
``ledger`` do I/O.
"""

__version__ = "0.1.0"
