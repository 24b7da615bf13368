"""One module a format, of its name: `make(folder)` writes the smallest file of it, as its makers would.

A format that writes needs none: its own files serve. Where a format has room for a patient's name, it is SECRET here.
"""
