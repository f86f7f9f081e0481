"""crossrank over HTTP: every dialect of reranking, one queue, a page to see it work.

`wire/` turns JSON into types and back; `answering` carries a request through; `scheduler` owns the backend and fills
its batches from all requests; `limits`, `keys` and `guard` keep out what is too much or not allowed; `app` has the
routes, `places` and `listening` the socket. Needs the `server` extra.
"""
