"""The console: pages for people who look after the queue."""
