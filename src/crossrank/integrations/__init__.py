"""Adapters for frameworks that have a seam for a reranker; each module is named after the framework it imports."""
