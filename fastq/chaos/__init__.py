"""kill -9 a server under load and account for everything that it acknowledged: `fastq chaos`, docs/chaos.md.

Client processes (`client.py`) submit, lease and ack, and write down what they were told before they use it
(`journal.py`); the harness (`run.py`) kills the server (`target.py`) and them (`crew.py`), keeps the books
(`accounting.py`, `ledger.py`), and judges (`verdict.py`).
"""
