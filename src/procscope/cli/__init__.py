"""The commands, one module each.

A command parses its arguments and calls the layer that does the work. Nothing here is of use to
another module. Imports of the layers below are lazy, so that help and completion answer at once.
"""
