"""`fastq chaos`."""

from __future__ import annotations

import asyncio
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

import click

from fastq.chaos.accounting import Accounts
from fastq.chaos.plan import SERVE, Plan, new_seed
from fastq.chaos.report import html
from fastq.chaos.run import run
from fastq.chaos.target import NamedServer, OwnServer, Target
from fastq.chaos.verdict import Outcome
from fastq.cli.notices import notice
from fastq.client.wire import Address
from fastq.server.settings import duration_ns

REPORT = "chaos.html"
KILLS = 20


class Seconds(click.ParamType[float]):
    """`500ms`, `3s`, `1m30s`, or a number of seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value)
        try:
            return float(text) if text.replace(".", "", 1).isdigit() else float(duration_ns(text) / 10**9)
        except ValueError as error:
            self.fail(f"'{text}' is not {error}", param, ctx)


@click.command()
@click.option("--target", "-target", "url", help="Test the server at http://host:port instead of starting one.")
@click.option(
    "--key", "-key", envvar="FASTQ_KEY", help="An admin key of that server. FASTQ_KEY keeps it out of the process list."
)
@click.option("--jobs", "-jobs", type=click.IntRange(1), default=10_000, show_default=True)
@click.option("--workers", "-workers", type=click.IntRange(1, 1000), default=16, show_default=True)
@click.option("--kills", "-kills", type=click.IntRange(0),
              help=f"Kills of the server. Default: {KILLS}, and 0 with --target and no --kill-cmd.")  # fmt: skip
@click.option("--kill-interval", "-kill-interval", "kill_interval_s", type=Seconds(), default="0",
              help="Minimum time between kills, such as 3s. Default: none.")  # fmt: skip
@click.option("--kill-cmd", "-kill-cmd", default="", help="Shell command that kills the server of --target.")
@click.option("--restart-cmd", "-restart-cmd", default="", help="Shell command that starts it again.")
@click.option("--kill-clients", "-kill-clients", is_flag=True, help="Kill -9 the harness's own client processes too.")
@click.option("--cleaning", "-cleaning", is_flag=True,
              help="Use short retention and little slack, so that the log is cleaned all the time.")  # fmt: skip
@click.option("--processes", "-processes", type=click.IntRange(1, 64), default=2, show_default=True,
              help="Client processes that share the workers.")  # fmt: skip
@click.option("--serve-cmd", "-serve-cmd", default=shlex.join(SERVE),
              help="Command that starts the server. Default: this fastq.")  # fmt: skip
@click.option("--seed", "-seed", type=click.IntRange(0), help="Repeat the payloads and kills of an earlier run.")
@click.option("--report", "-report", type=click.Path(dir_okay=False, path_type=Path), default=REPORT, show_default=True,
              help="HTML file to write.")  # fmt: skip
def chaos(
    url: str | None, key: str | None, jobs: int, workers: int, kills: int | None, kill_interval_s: float, kill_cmd: str,
    restart_cmd: str, kill_clients: bool, cleaning: bool, processes: int, serve_cmd: str, seed: int | None,
    report: Path,
) -> None:  # fmt: skip
    """Kill -9 a server under load and account for every job that it acknowledged.

    Without --target it starts a server in a temporary directory. The exit code is 0, with ZERO LOSS, only if jobs were
    acked, every kill hit a server with requests in flight, and nothing was lost, undone or doubled.
    """
    if kills is None:
        kills = min(KILLS, jobs - 1) if url is None or kill_cmd else 0
    plan = Plan(
        jobs, workers, kills, kill_interval_s, kill_clients, cleaning, min(processes, workers),
        new_seed() if seed is None else seed, shlex.split(serve_cmd),
    )  # fmt: skip
    if jobs <= kills:
        raise click.UsageError("--jobs must be more than --kills: each kill needs a job in flight")
    if url is None and (kill_cmd or restart_cmd):
        raise click.UsageError("--kill-cmd and --restart-cmd need --target")
    if url is not None:
        outcome = _with_bar(plan, _named(url, key, plan, kill_cmd, restart_cmd))
    else:
        outcome = _on_its_own(plan)
    report.write_text(html(outcome))
    click.echo(f"{outcome.text()}\nreport: {report}")
    sys.exit(0 if outcome.is_zero_loss else 1)


def _named(url: str, key: str | None, plan: Plan, kill_cmd: str, restart_cmd: str) -> NamedServer:
    if plan.cleaning:
        raise click.UsageError("--cleaning cannot be used with --target: it sets the server's settings")
    if plan.kills and not kill_cmd:
        raise click.UsageError("--target needs --kill-cmd, or --kills 0")
    try:
        Address.of(url, key or "")
    except ValueError as error:
        raise click.UsageError(f"--target, --key: {error}") from None
    return NamedServer(url, key or "", kill_cmd, restart_cmd)


def _on_its_own(plan: Plan) -> Outcome:
    directory = Path(tempfile.mkdtemp(prefix="fastq-chaos-"))
    try:
        outcome = _with_bar(plan, OwnServer(plan, directory))
    except BaseException:
        shutil.rmtree(directory)
        raise
    if outcome.is_zero_loss:
        shutil.rmtree(directory)
    else:
        notice(f"the server's data and output are in {directory}")
    return outcome


def _with_bar(plan: Plan, target: Target) -> Outcome:
    """Show a progress bar on a terminal."""
    with click.progressbar(length=plan.jobs, label="jobs acked", width=30, item_show_func=lambda shown: shown) as bar:

        def on_progress(accounts: Accounts, client_kills: int) -> None:
            bar.update(len(accounts.acked) - bar.pos, _shown(plan, accounts, client_kills))

        try:
            return asyncio.run(run(plan, target, on_progress))
        except KeyboardInterrupt:
            raise click.Abort from None


def _shown(plan: Plan, accounts: Accounts, client_kills: int) -> str:
    clients = f", {client_kills} of clients" if plan.kill_clients else ""
    return f"submitted {len(accounts.submitted):,}, kills {len(accounts.kills)}/{plan.kills}{clients}"
