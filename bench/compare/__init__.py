"""Compare fastq with other durable queues, on one machine, in one run: `./dev bench --help`."""
