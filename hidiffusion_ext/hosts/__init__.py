"""What a WebUI's processing job tells: its model, its sampling pass and that pass's schedule."""
