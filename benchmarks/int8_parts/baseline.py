"""What `optkit quantize` holds before it calibrates: its imports, and the network in ONNX Runtime. MODEL"""

import sys
from pathlib import Path

import optkit.cli._run
import optkit.pipeline
import optkit.stages.quantize.stage  # noqa: F401
from optkit.graph.onnx_file import read_onnx
from optkit.stages.quantize.execute import open_session

if __name__ == "__main__":
    open_session(read_onnx(Path(sys.argv[1])))
