"""What travels through a run: chunks, events and the usage they add up to."""
