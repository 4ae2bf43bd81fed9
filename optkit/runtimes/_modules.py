"""How long the modules of a network take, each without the modules in it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from optkit.runtimes._kernels import KernelTime, LayerTimes, Repeats, layer_medians

if TYPE_CHECKING:
    import torch

Marks = list[tuple[str, bool, Any]]  # name of a module, whether it begins or ends, when


def module_times(
    module: torch.nn.Module,
    run: Callable[[], object],
    repeats: Repeats,
    mark: Callable[[], Any],
    milliseconds: Callable[[Any, Any], float],
) -> LayerTimes:
    """Times of the modules while `run` runs them; `mark` notes a time, `milliseconds` lie between two of them."""
    marks: Marks = []
    runs: list[dict[str, float]] = []

    def call() -> None:
        marks.clear()
        run()

    with _hooks(module, marks, mark):
        totals = repeats.time(call, lambda: runs.append(own_times(marks, milliseconds)))
    kinds = {name: type(layer).__name__ for name, layer in module.named_modules()}
    return layer_medians(totals, runs, lambda name, ms: KernelTime(name, kinds[name], ms, (name,)))


@contextmanager
def _hooks(module: torch.nn.Module, marks: Marks, mark: Callable[[], Any]) -> Iterator[None]:
    handles = []
    for name, layer in module.named_modules():

        def begins(_layer: object, _inputs: object, name: str = name) -> None:
            marks.append((name, True, mark()))

        def ends(_layer: object, _inputs: object, _output: object, name: str = name) -> None:
            marks.append((name, False, mark()))

        # The first and the last of a module's own hooks, so that theirs are its time.
        handles += [
            layer.register_forward_pre_hook(begins, prepend=True),
            layer.register_forward_hook(ends),
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def own_times(marks: Marks, milliseconds: Callable[[Any, Any], float]) -> dict[str, float]:
    """Milliseconds of every module without those of the modules that ran within it."""
    found: dict[str, float] = defaultdict(float)
    running: list[tuple[str, Any]] = []
    inner = [0.0]  # what ran within each of `running`, and beside them
    for name, begins, mark in marks:
        if begins:
            running.append((name, mark))
            inner.append(0.0)
        else:
            name, began = running.pop()
            took = milliseconds(began, mark)
            found[name] += took - inner.pop()
            inner[-1] += took
    return found
