"""The log in local files."""
