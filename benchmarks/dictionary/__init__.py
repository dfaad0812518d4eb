"""Makes the zstd dictionary that the library ships; measures nothing.

``train`` is the command line; ``content`` and ``english`` are the text of the dictionary,
``samples`` the generated events from which zstd takes its statistics. Nothing here shares text
with ``benchmarks.workloads``, and nothing in the benchmarks imports it.
"""
