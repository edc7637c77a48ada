"""fastq under the task frameworks that people have already. A module is of use where its framework is installed."""
