"""What a card forbids while a graph is captured on it, by whichever engine of the process."""

from __future__ import annotations

from threading import Lock

capturing = Lock()
"""Held while a graph is captured, and by whoever takes or frees a card's or pinned memory, or waits for a whole card:
any of them can end a capture that goes on in another thread. Nobody waits for another lock while holding it."""
