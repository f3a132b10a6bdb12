"""What only a GPU can show, in parts of about a minute: `python -m benchmarks.gpu [--tiny] [--parts NAME ...]`.

Needs torch 2.11 or newer, transformers and peft; neither Ray, vLLM nor a network.
"""
