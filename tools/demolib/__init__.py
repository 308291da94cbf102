"""The demonstration: real producers, three recovery points each, all restored and compared.

`tools/demo` runs it. It uses Holdfast as a person does, through the holdfast command and the
mounted directories, and imports nothing of it.
"""
