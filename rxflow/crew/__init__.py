"""Crews: agents, tasks, and how the one carry out the other."""
