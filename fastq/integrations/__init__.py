"""fastq as the backend of other task frameworks. Each module needs its framework installed."""
