"""The operations of a store, each written once as a coroutine for sync and async use.

Decides what happens in which transaction. Contains no SQL: statements are in ``queries``.
"""
