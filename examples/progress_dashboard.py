"""A flow, streamed to a live dashboard."""
