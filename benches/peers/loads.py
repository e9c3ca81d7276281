"""Loads of many requests, and what an engine makes of them. Used by `serve.py` and `serving.py`.

A load is a list of *clients*. A client sends its requests one after the other: the next when the one before has ended.
In a closed load a fixed number of clients are always busy; in an open load each client sends one request at a time of
its own, however busy the engine is. All is drawn from a seed, so every engine gets the same.
"""
import dataclasses
import random
import statistics
import time

# Ids that are special tokens in no engine.
FIRST_ID, LAST_ID = 300, 1900


@dataclasses.dataclass(frozen=True)
class Turn:
    """One request of a client: tokens that follow what the client has said and got so far (with `fresh`, nothing)."""

    tokens: list[int]
    generate: int
    fresh: bool = True


@dataclasses.dataclass(frozen=True)
class Client:
    turns: list[Turn]
    # Seconds after the beginning at which it sends its first request.
    starts: float = 0.0


@dataclasses.dataclass
class Record:
    """What happened to a request. Times are seconds since the beginning."""

    client: int
    turn: int
    prompt: int
    sent: float
    tokens: list[float] = dataclasses.field(default_factory=list)
    ended: float = 0.0


def ids(draw: random.Random, count: int) -> list[int]:
    return [draw.randrange(FIRST_ID, LAST_ID) for _ in range(count)]


def short_turn(draw: random.Random) -> Turn:
    return Turn(ids(draw, draw.randint(64, 256)), draw.randint(32, 96))


def closed(sequences: int) -> list[Client]:
    """`sequences` clients that send three requests each."""
    draw = random.Random(1)
    return [Client([short_turn(draw) for _ in range(3)]) for _ in range(sequences)]


def poisson(rate: float, seconds: float) -> list[Client]:
    """Arrivals at `rate` per second; one of ten has a prompt of 2,000 tokens."""
    draw, at, clients = random.Random(2), 0.0, []
    while True:
        at += draw.expovariate(rate)
        if at >= seconds:
            return clients
        long = draw.random() < 0.1
        clients.append(Client([Turn(ids(draw, 2000), 32) if long else short_turn(draw)], at))


def shared_prefix(requests: int) -> list[Client]:
    """A client whose requests all begin with the same 2,000 tokens; 32 of each are its own."""
    draw = random.Random(3)
    prefix = ids(draw, 2000)
    return [Client([Turn(prefix + ids(draw, 32), 8) for _ in range(requests)])]


def conversations(count: int, turns: int) -> list[Client]:
    """Clients who talk: each of their turns adds 48 tokens to all that was said before."""
    draw = random.Random(4)
    return [Client([Turn(ids(draw, 400 if turn == 0 else 48), 48, fresh=turn == 0) for turn in range(turns)])
            for _ in range(count)]


def run(engine, clients: list[Client]) -> list[Record]:
    """Sends the load to `engine`, which has `submit(number, prompt, generate)` and `poll(seconds)`: the tokens that have
    come, as (number, time, ids, ended), after at most `seconds` of waiting for them."""
    records: list[Record] = []
    said: dict[int, list[int]] = {}
    waiting = sorted(range(len(clients)), key=lambda client: clients[client].starts)
    running = 0
    began = time.perf_counter()

    def send(client: int, turn: int, at: float) -> None:
        nonlocal running
        what = clients[client].turns[turn]
        prompt = what.tokens if what.fresh else said[client] + what.tokens
        said[client] = list(prompt)
        records.append(Record(client, turn, len(prompt), at))
        running += 1
        engine.submit(len(records) - 1, prompt, what.generate)

    while waiting or running:
        now = time.perf_counter() - began
        while waiting and clients[waiting[0]].starts <= now:
            client = waiting.pop(0)
            # A request that is sent late has waited already.
            send(client, 0, clients[client].starts)
        patience = clients[waiting[0]].starts - now if waiting else 1.0
        if not running:
            time.sleep(max(patience, 0.0))
            continue
        for number, when, tokens, ended in engine.poll(max(patience, 0.001)):
            record = records[number]
            record.tokens += [when - began] * len(tokens)
            said[record.client] += tokens
            if ended:
                running -= 1
                record.ended = when - began
                if record.turn + 1 < len(clients[record.client].turns):
                    send(record.client, record.turn + 1, record.ended)
    return records


def percentile(values: list[float], share: float) -> float:
    """The value at `share` of the sorted ones, rounded up to one that is there."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def summary(records: list[Record]) -> dict:
    """Rates in tokens/s, times in seconds."""
    first = [record.tokens[0] - record.sent for record in records]
    between = [b - a for record in records for a, b in zip(record.tokens, record.tokens[1:])]
    seconds = max(record.ended for record in records) - min(record.sent for record in records)
    generated = sum(len(record.tokens) for record in records)
    warm = [time for record, time in zip(records, first) if record.turn > 0]
    cold = [time for record, time in zip(records, first) if record.turn == 0]
    return {
        "requests": len(records), "seconds": seconds, "generated_tokens": generated,
        "prompt_tokens": sum(record.prompt for record in records),
        "throughput": generated / seconds,
        "first_token_p50": percentile(first, 0.5), "first_token_p99": percentile(first, 0.99),
        "between_p50": percentile(between, 0.5), "between_p99": percentile(between, 0.99),
        "first_turn": statistics.median(cold), "later_turns": statistics.median(warm) if warm else None,
    }
