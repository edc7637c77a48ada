"""`fastq chaos` kills a server under load (kill -9) and checks every answer that it gave: see docs/chaos.md.

Client processes (`client.py`) submit, lease and ack, and write each answer down before they use it (`journal.py`).
The harness (`run.py`) kills the server (`target.py`) and the clients (`crew.py`), keeps an account of all answers
(`accounting.py`, `ledger.py`), and gives a verdict (`verdict.py`).
"""
