"""What is compared: this library, LangGraph, and the limits that no library can beat.

``peer`` says what a peer is; ``ours`` and ``langgraph`` open their savers; ``registry`` names all
peers and pairs them; ``limits`` writes and decodes with the bare drivers. Nothing here measures.
"""
