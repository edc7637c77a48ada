"""The HTTP API: bytes to commands, and what the engine says back to bytes."""
