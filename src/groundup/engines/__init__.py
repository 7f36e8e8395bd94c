"""Engines generate tokens from a model for many requests at once.

    engine.start()
    handle = engine.submit(EngineRequest(token_ids, SamplingParams(max_tokens=100)), on_output)
    handle.cancel()            # the last output then has the finish reason "cancelled"
    engine.stats()             # running and waiting requests, counters
    engine.close(drain_seconds=30)

`engines/request.py` defines what goes in and out; `engines/own.py` is the engine on our model.
"""
