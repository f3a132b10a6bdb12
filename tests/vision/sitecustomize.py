"""Lets torchvision's build for CUDA be imported next to a torch for CPUs, where its compiled operators do not load.

Python runs this when it starts if the folder is on PYTHONPATH. torchvision describes these operators whether or not
they were loaded, so they have to be declared. vLLM uses none of them for text.
"""

import contextlib

with contextlib.suppress(ImportError):  # other interpreters start with this path too
    import torch

    for operator in ("nms", "qnms"):
        torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
