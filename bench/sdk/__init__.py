"""`python -m bench.sdk`: compare the SDK's throughput with task queues on Redis."""
