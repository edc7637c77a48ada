"""`python -m bench.sdk`: the SDK's throughput, next to that of task queues on Redis."""
