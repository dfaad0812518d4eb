"""The operations of a store, written once as coroutines for sync and async use.

Decides what happens in which transaction. Contains no SQL: statements are in ``queries``.
"""
