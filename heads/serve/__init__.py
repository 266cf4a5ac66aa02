"""A head behind a page and a JSON endpoint, for one machine or a small network.

limits     how much is taken at once
hosts      which names of the server are believed
guard      refuses foreign, large and slow requests before they are read
batching   images of concurrent requests through the encoder together
service    a head: from uploaded files to predictions
app        the page and the endpoints (FastAPI)
running    the socket, the server and its end

FastAPI is imported in `app`, `guard` and `running` alone; the extra `serve` installs it.
"""
