"""Other tools, each in an environment of its own and given the same decoded photos."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from int8_parts.processes import Run, measured

REQUIREMENTS = {
    "onnxruntime": ("onnx==1.23.2", "onnxruntime==1.31.1"),
    "nncf": ("nncf==3.4.0", "onnx==1.23.2", "onnxruntime==1.31.1"),
}


@dataclass(frozen=True)
class Peer:
    """A tool with its settings."""

    tool: str
    settings: str

    @property
    def name(self) -> str:
        return f"{self.tool} {self.settings}"


ORT_U8S8 = Peer("onnxruntime", "u8s8")
NNCF_DEFAULT = Peer("nncf", "default")
PEERS = (ORT_U8S8, NNCF_DEFAULT, Peer("nncf", "accurate"))


def environment(tool: str, folder: Path) -> Path:
    """The Python of the tool's environment below `folder`, which is made where it is not there or another."""
    home, wanted = folder / tool, "\n".join(REQUIREMENTS[tool])
    stamp = home / "requirements.txt"
    windows = sys.platform == "win32"
    python = home / ("Scripts/python.exe" if windows else "bin/python")
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != wanted:
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", *REQUIREMENTS[tool]]
        subprocess.run(install, check=True, stdout=sys.stderr)
        stamp.write_text(wanted, encoding="utf-8")
    return python


def quantise(peer: Peer, environments: Path, model: Path, calibration: Path, out: Path) -> tuple[Run, float]:
    """Have `peer` write `out`; the run, and the seconds without starting Python and importing."""
    python = environment(peer.tool, environments)
    script = Path(__file__).parent / f"run_{peer.tool}.py"
    out.parent.mkdir(parents=True, exist_ok=True)
    command = [str(python), str(script), str(model), str(calibration), str(out), peer.settings]
    run = measured(command)
    return run, json.loads(run.stdout.splitlines()[-1])["seconds"]
