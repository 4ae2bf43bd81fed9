"""NNCF's quantize of an ONNX file, in an environment of its own: MODEL CALIBRATION.npy OUT default|accurate."""

import json
import sys
import time

import nncf
import numpy as np
import onnx


def main() -> None:
    model, calibration, out, settings = sys.argv[1:]
    images = np.load(calibration, mmap_mode="r")
    network = onnx.load(model)
    (name,) = (entry.name for entry in network.graph.input)
    started = time.perf_counter()
    data = nncf.Dataset(range(len(images)), lambda index: {name: images[index : index + 1]})
    quantised = nncf.quantize(
        network, data, subset_size=len(images), fast_bias_correction=settings != "accurate"
    )
    onnx.save(quantised, out)
    print(json.dumps({"seconds": time.perf_counter() - started}))


if __name__ == "__main__":
    main()
