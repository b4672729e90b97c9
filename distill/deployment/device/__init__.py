"""What travels to a device: this folder and `distill/runtime.py`, as they are.

Standard library, numpy and onnxruntime, in Python 3.9 syntax. The same code runs on this machine,
under emulation and over ssh; it knows nothing of how artefacts are made, nor of accuracy.
"""
