"""A module that starts a thread when it is imported; it holds no tests."""

import threading

threading.Thread(target=threading.Event().wait, daemon=True).start()
