"""crossrank over HTTP: every dialect of reranking, one queue, a page to see it work.

`wire/` turns JSON into types and back; `answering` carries a request through; `service` has the models, of which each
cross-encoder is one of `rerankers`; `scheduler` owns their backends and fills batches from all requests, as large as
`speeds` say; `limits`, `keys` and `guard` keep out what is too much or not allowed; `app` has the
routes, `places` and `listening` the socket. Needs the `server` extra.
"""
