"""What `place` decides, and what it costs."""
