"""What stored events and states look like to people: plain values, sentences, differences, causes.

Shared by the edges that show threads, the command line and the explorer. Reads by the operations
of a store that it is given; opens none, writes nothing and prints nothing.
"""
