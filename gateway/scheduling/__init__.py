"""Scheduling, one scheduler per device slot: which queue, how many, now or later."""
