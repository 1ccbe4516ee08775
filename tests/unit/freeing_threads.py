"""A small event simulation of threads that zap and free, to judge the model by something else.

A thread and workers share lists of chunks of pages. Freeing a chunk needs the lock of its node
for a while, first come, first served; who waits spins, which is CPU time. Times are drawn from
exponential distributions; a list costs 1 in the serial kernel, of which `zap` is zapping and `hold`
is under a lock.
"""

import heapq
import itertools
import random
from dataclasses import dataclass

CHUNKS = 16


@dataclass
class Took:
    """Shares of the time of one thread without contention, and of the lists."""

    elapsed: float
    own: float
    other: float
    handed: float


class Simulation:
    def __init__(self, design, *, workers, nodes, zap, hold, lists, seed):
        self.design, self.workers, self.nodes = design, workers, nodes
        self.zap, self.hold, self.lists = zap, hold, lists
        self.rng = random.Random(seed)
        self.now, self.pending, self.unmapped = 0.0, 0, lists
        self.events, self.count = [], itertools.count()
        self.free_at = [0.0] * nodes
        self.waiting, self.running, self.handed = [], 0, 0
        self.spent = {"own": 0.0, "other": 0.0}
        self.is_zapped = False

    def run(self):
        actors = [self.actor("own", self.thread())]
        actors += [self.actor("other", self.worker()) for _ in range(self.workers)]
        for actor in actors:
            self.push(0.0, actor)
        while self.events:
            self.now, _, actor = heapq.heappop(self.events)
            next(actor, None)
        spent = {who: each / self.lists for who, each in self.spent.items()}
        return Took(self.now / self.lists, handed=self.handed / self.lists, **spent)

    def push(self, at, actor):
        heapq.heappush(self.events, (at, next(self.count), actor))

    def actor(self, who, steps):
        """Run the steps of a thread: a time to work, a lock to hold, or None to wait for work."""
        me = None

        def drive():
            for step in steps:
                if step is None:
                    self.waiting.append(me)
                    yield
                    continue
                kind, length = step
                drawn = self.rng.expovariate(1 / length) if length else 0.0
                begin = self.now
                if kind == "hold":
                    node = self.rng.randrange(self.nodes)
                    begin = max(self.now, self.free_at[node])
                    self.free_at[node] = begin + drawn
                self.spent[who] += begin + drawn - self.now
                self.push(begin + drawn, me)
                yield

        me = drive()
        return me

    def wake(self):
        for actor in self.waiting:
            self.push(self.now, actor)
        self.waiting.clear()

    def work(self, *, zaps, frees):
        for _ in range(CHUNKS):
            think = zaps * self.zap + frees * (1 - self.zap - self.hold)
            yield "work", think / CHUNKS
            if frees:
                yield "hold", self.hold / CHUNKS

    def thread(self):
        if self.design == "parallel-unmap":
            yield from self.pieces("own")
        else:
            for _ in range(self.lists):
                yield from self.work(zaps=1, frees=0)
                if self.design == "parallel-free" and self.pending > self.workers:
                    yield from self.work(zaps=0, frees=1)
                else:
                    self.pending += 1
                    self.wake()
            self.is_zapped = True
            while self.design == "parallel-free" and self.pending:
                self.pending -= 1
                yield from self.work(zaps=0, frees=1)
        self.is_zapped = True
        self.wake()

    def pieces(self, who):
        while self.unmapped:
            self.unmapped -= 1
            self.handed += who == "other"
            yield from self.work(zaps=1, frees=1)

    def worker(self):
        if self.design == "parallel-unmap":
            yield from self.pieces("other")
            return
        while self.pending or not self.is_zapped:
            if not self.pending:
                yield None
                continue
            self.pending -= 1
            self.handed += 1
            yield from self.work(zaps=0, frees=1)


def took(design, *, workers=0, nodes=1, zap=0.35, hold=0.1, lists=400, seed=1):
    if not workers:
        return Took(elapsed=1.0, own=1.0, other=0.0, handed=0.0)
    return Simulation(
        design, workers=workers, nodes=nodes, zap=zap, hold=hold, lists=lists, seed=seed
    ).run()
