"""First stages that people run already: a store keeps the passages, finds them, and gives their texts.

`store` says what a store answers and `function` makes retrievers of it, or of any function. Each store is a module of
its own, which needs the extra of that name and the official client.
"""
