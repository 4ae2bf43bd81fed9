"""The linter: does a file suit the runtime it was made for? Every rule is an entry of a file in `rules/`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import onnx
from onnx import TensorProto, numpy_helper

from optkit.core import discover
from optkit.core.errors import UsageError, closest
from optkit.graph.lint.execution import Execution
from optkit.graph.lint.names import label
from optkit.graph.lint.view import FileFacts, LintGraph
from optkit.graph.onnx_file import read_onnx

RULES = "optkit.graph.lint.rules"
ONNXRUNTIME, OPENVINO, TENSORRT = "onnxruntime", "openvino", "tensorrt"
CPU = (ONNXRUNTIME, OPENVINO)
TARGETS = (*CPU, TENSORRT)


class Severity(StrEnum):
    """ERROR: refused, wrong, or known to lose accuracy or speed; WARNING: likely slower or less exact."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"

    def on(self, targets: Iterable[str]) -> dict[str, Severity]:
        """This severity for each of `targets`."""
        return dict.fromkeys(targets, self)


@dataclass(frozen=True)
class Finding:
    """One defect: which rule, at which node (empty: the whole file), why it matters and what to do.

    `redo` is the command that makes a file without it: export or quantize.
    """

    rule: str
    severity: Severity
    node: str
    reason: str
    remedy: str
    redo: str


@dataclass(frozen=True)
class Rule:
    """`check` yields a node's label and the reason for each place where the rule is broken.

    `severity` is by target: the rule does not judge others. `redo`: see `Finding`.
    """

    name: str
    severity: Mapping[str, Severity]
    remedy: str
    check: Callable[[LintGraph], Iterator[tuple[str, str]]]
    redo: str = "quantize"


@dataclass(frozen=True)
class Linted:
    """Findings, errors first; `execution` is None when the file was too broken to look at."""

    findings: list[Finding]
    execution: Execution | None


def lint(model: onnx.ModelProto, target: str) -> list[Finding]:
    """Everything wrong with `model` for `target`; never raises for a broken model."""
    return examine(model, target).findings


def lint_file(path: Path, target: str, asked_opset: int | None = None) -> Linted:
    """Examine an ONNX file; InputError when it is none. `asked_opset` is what its maker was asked to write."""
    check_target(target)
    model = read_onnx(path)
    stored = onnx.load(path, format="protobuf", load_external_data=False).graph.initializer
    external = tuple(tensor.name for tensor in stored if tensor.data_location == TensorProto.EXTERNAL)
    return examine(model, target, FileFacts(asked_opset, external))


def examine(model: onnx.ModelProto, target: str, facts: FileFacts | None = None) -> Linted:
    """The findings, with what the target's runtime made of the file."""
    check_target(target)
    if broken := _structure(model):
        remedy = "Export or copy the file again."
        return Linted(
            [Finding("valid-file", Severity.ERROR, node, why, remedy, "export") for node, why in broken], None
        )
    graph = LintGraph(model, target, facts or FileFacts())
    findings = [
        Finding(rule.name, rule.severity[target], node, reason, rule.remedy, rule.redo)
        for rule in rules()
        if target in rule.severity
        for node, reason in rule.check(graph)
    ]
    order = list(Severity)
    return Linted(sorted(findings, key=lambda found: order.index(found.severity)), graph.execution)


def check_target(target: str) -> None:
    """UsageError for a target that has no rules."""
    if target not in TARGETS:
        raise UsageError(f"Unknown target {target!r}.", hint=closest(target, TARGETS))


def rules() -> list[Rule]:
    """Every rule, as the folder lists them."""
    return [rule for name in discover.names(RULES) for rule in discover.load(RULES, name, "rule").RULES]


def _structure(model: onnx.ModelProto) -> list[tuple[str, str]]:
    """Why the graph cannot be looked at; empty when it can."""
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:
        return [("", (str(error).strip().splitlines() or ["it is empty"])[0])]
    nodes = model.graph.node
    if unbound := [node for node in nodes if any(entry.ref_attr_name for entry in node.attribute)]:
        why = "An attribute refers to one of a function, but the node is in none."
        return [(label(node), why) for node in unbound]
    constants = [
        *model.graph.initializer,
        *(entry.t for node in nodes for entry in node.attribute if entry.HasField("t")),
    ]
    return [(tensor.name, why) for tensor in constants if (why := _why_unreadable(tensor))]


def _why_unreadable(tensor: TensorProto) -> str:
    if tensor.data_location == TensorProto.EXTERNAL:
        return "Its data lies in another file and was not loaded."
    try:
        numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError) as error:
        return f"Its data cannot be read: {error}"
    return ""
