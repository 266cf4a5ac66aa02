"""A head behind a page and a JSON endpoint, for one machine or a small network.

limits        how much is taken at once
hosts         which names of the server are believed
connections   closes connections that ask for nothing
guard         refuses foreign, large and slow requests before they are read
batching      images of concurrent requests through the encoder together
batch_sizes   how many of them
service       a head: from uploaded files to predictions
app           the page and the endpoints (FastAPI)
running       the socket, the server and its end

FastAPI and uvicorn are imported in `app`, `connections`, `guard` and `running` alone; the extra
`serve` installs them.
"""
