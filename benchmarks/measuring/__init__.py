"""Takes the figures: all peers in the same run, in turns, and the limits right after.

``bench`` is what every measurement needs, ``timing`` how time is taken, ``storage`` what is stored
and sent; ``conversation``, ``runs``, ``log`` and ``memory`` each measure one kind of work. Nothing
here prints. Timed code never includes making data, opening files or checking results.
"""
