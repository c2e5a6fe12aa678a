"""The service of h5grove as its documentation sets it up; ``base_dir`` comes from the environment."""

from __future__ import annotations

import hdf5plugin  # noqa: F401 - so that HDF5 knows Blosc
from fastapi import FastAPI
from h5grove.fastapi_utils import router

app = FastAPI()
app.include_router(router)
