"""The truth test: a machine of a size against containers of that size on a larger machine.

`collect.py` runs inside each of them and notes what the tools print, `subjects` boots and starts
them, `tools` parses each tool's output into facts, `facts` decides whether a fact agrees, `repeat`
measures again what does not agree, and `report` writes the table in docs/fidelity.md.

`python3 -m tests.machine.fidelity` measures, and writes the page anew.
"""
