"""Tasks of taskiq on a fastq server. The key needs the scopes of a worker and a client; an admin key has both.

`taskiq worker --app-dir examples taskiq_app:broker`, and `python examples/taskiq_app.py` to send tasks.
"""

from __future__ import annotations

import asyncio

from fastq.integrations.taskiq import FastqBroker

broker = FastqBroker()  # FASTQ_URL and FASTQ_KEY


@broker.task(task_name="add")
async def add(a: int, b: int) -> int:
    return a + b


@broker.task(task_name="pay")
def pay(cents: int) -> str:
    raise ValueError(f"no card for {cents} cents")


async def send() -> None:
    await broker.startup()
    tasks = [await add.kiq(n, n) for n in range(3)]
    results = [await task.wait_result(check_interval=0.05, timeout=60) for task in tasks]
    print("sums:", *[result.return_value for result in results])
    later = await add.kicker().with_labels(delay=0.5, priority=5).kiq(20, 22)
    print("half a second later:", (await later.wait_result(check_interval=0.05, timeout=60)).return_value)
    failed = await (await pay.kiq(995)).wait_result(check_interval=0.05, timeout=60)
    print("failed:", repr(failed.error))
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(send())
