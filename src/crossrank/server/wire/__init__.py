"""JSON to types and back: one small module a dialect, all over the same two types of `wire.shapes`."""
