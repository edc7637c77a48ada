"""The macro comparison: fastq beside other durable queues, on one machine, in one run. `./dev bench --help`."""
