"""ONNX Runtime's quantize_static, in an environment of its own: MODEL CALIBRATION.npy OUT default|u8s8."""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

SETTINGS = {
    "default": {},
    "u8s8": {"per_channel": True, "activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8},
}


class Reader(CalibrationDataReader):
    """One image at a time, from the disk."""

    def __init__(self, name: str, images: np.ndarray) -> None:
        self._feeds = ({name: images[index : index + 1]} for index in range(len(images)))

    def get_next(self) -> dict | None:
        return next(self._feeds, None)


def main() -> None:
    model, calibration, out, settings = sys.argv[1:]
    images = np.load(calibration, mmap_mode="r")
    (name,) = (entry.name for entry in onnx.load(model).graph.input)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        prepared = str(Path(folder) / "prepared.onnx")
        quant_pre_process(model, prepared, skip_symbolic_shape=True)
        quantize_static(prepared, out, Reader(name, images), **SETTINGS[settings])
    print(json.dumps({"seconds": time.perf_counter() - started}))


if __name__ == "__main__":
    main()
