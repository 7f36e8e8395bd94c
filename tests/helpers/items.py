"""Files in memory, as a reader gets them."""

import io

from groundup.collect.files.streams import BoundedStream, Item, make_item


def item_from_bytes(data: bytes, origin: str) -> Item:
    return make_item(origin, origin.rpartition("/")[2], BoundedStream(io.BytesIO(data)))
