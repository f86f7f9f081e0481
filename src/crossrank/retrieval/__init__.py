"""First stages: text in, rankings of passages out. `bm25` finds words, `dense` finds meanings."""
