"""Tasks that count how often they ran, in redis itself."""

from __future__ import annotations

import os
import time

import redis
from celery import Celery

URL = os.environ["REDIS_URL"]

app = Celery("tasks", broker=URL)
app.conf.update(
    task_ignore_result=True,
    worker_prefetch_multiplier=1,  # a worker that drains leaves the rest in the queue
    beat_schedule={"tick": {"task": "tasks.tick", "schedule": 1.0}},
)
counts = redis.Redis.from_url(URL)


@app.task
def work(number: int, seconds: float = 0.2) -> None:
    """Works for a moment; `ran` holds how often each number was worked on."""
    time.sleep(seconds)
    counts.hincrby("ran", str(number), 1)


@app.task
def tick() -> None:
    """Sent by beat every second; `ticks` holds when."""
    counts.rpush("ticks", time.time())
