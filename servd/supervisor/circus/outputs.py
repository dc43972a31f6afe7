"""The outputs of one process: logged as events of its service, and what it prints, to the file."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from servd.config.service import ServiceLog
from servd.supervisor.circus.launch import Launch
from servd.supervisor.io.output import LastLines, OutputPipe
from servd.supervisor.io.print_file import PrintFile


class ProcessOutputs:
    """What a process of `launch` writes; `last` are its last lines."""

    def __init__(self, launch: Launch) -> None:
        self.last = LastLines()
        self._launch = launch
        self._pipes: list[OutputPipe] = []
        self._file: PrintFile | None = None

    def open(self, reading: Mapping[str, int], **identity: int) -> None:
        """Reads the descriptors, by stream; events get the `identity` of the process."""
        plan, context = self._launch.plan, self._launch.context
        self._rate = context.rates.of(plan.name, plan.definition.log.max_rate)
        self._file = context.print_files.acquire(plan.definition.log, plan.identity.account)
        whole = {"service": plan.name, **identity, "generation": self._launch.generation}
        self._pipes = [
            OutputPipe(
                descriptor,
                whole,
                stream,
                last=self.last,
                sink=context.sink,
                now=context.now,
                rate=self._rate,
                budget=context.budget,
                file=self._file,
            )
            for stream, descriptor in reading.items()
        ]

    def print_to(self, options: ServiceLog | None) -> None:
        """What it prints goes to the file of `options` from now on, if they name one."""
        files, before = self._launch.context.print_files, self._file
        account = self._launch.plan.identity.account
        self._file = files.acquire(options, account) if options is not None else None
        for pipe in self._pipes:
            pipe.file = self._file
        files.release(before)

    def close(self) -> None:
        """Reads the last words, and releases everything, even if a step fails."""
        with contextlib.ExitStack() as steps:  # run from the last to the first
            if self._pipes:
                steps.callback(self._rate.report)
            steps.callback(self.print_to, None)
            for pipe in reversed(self._pipes):
                steps.callback(pipe.close)
                steps.callback(pipe.drain)
        self._pipes = []
