"""Coverage-guided fuzzing: what is done with bytes from elsewhere, and the promises that hold.

`targets` is the table of what is fuzzed: each target is a function of bytes that raises where a
promise is broken. `corpus/TARGET/` holds inputs that each reach code which the others do not.
`python -m tests.fuzz.run TARGET` looks for more with atheris; the unit tests give every input of
the corpus, and changed ones, to its target without it.
"""
