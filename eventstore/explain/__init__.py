"""What stored events and states look like to people: plain values, sentences, differences.

Shared by the edges that show threads, the command line and the explorer. Reads values that it is
given, opens no store and prints nothing.
"""
