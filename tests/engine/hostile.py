"""Clients of one server, well-meant and hostile, and what each of them must be told."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import httpx

import interv
from tests.engine.operated import MODEL, Operated

DOCUMENT = """interv 1
vector v = "v.safetensors"
vector w = "w.safetensors"
sink mem     = memory(ttl_s = 5, mib = 16)
sink packed  = filesystem("packed/")
sink sharded = filesystem("sharded/", layout = sharded, shard_s = 2)
program joy    { steer v at post_block[10..20] scale 0.2 }
program formal { steer w at post_block[10..20] scale 0.2 when generated }
program gloom  { cap v at post_block[10..20] in [, -20] }
program dry    { ablate w at post_attn[5..25] when prompt[-1] or generated }
program gated  { steer v at post_block[15] scale 1 gate w at post_block[8] sharpness 2 threshold 1 }
program probe  { capture at post_block[5, 25] to mem }
program files  { capture at post_block[5, 15, 25] to packed }
program shards { capture at post_block[5, 15, 25] tokens generated to sharded }
program keepm  { capture at post_block[20] to mem keep marked }
"""
SLOTS = 8
PROMPTS = (
    "The capital of France is",
    "Once upon a time, there was",
    "Water boils when",
    "1, 2, 3,",
)
INLINE = "interv 1  program mine { steer v at post_block[12] scale 0.5 when not prompt[0] }"
RIGHT = (None, "off", "joy", "formal*0.5", "gloom", "dry", "joy*0.5 + formal", "gated", INLINE)
TOKENS = 6
DEEP = "interv 1 program p { steer v at post_block[12] when "
HOSTILE = (
    DEEP + "not (" * 5000 + "generated" + ")" * 5000 + " }",
    DEEP + "not " * 5000 + "generated }",
    DEEP + f"prompt[{'9' * 5000}] }}",
    DEEP + "token(99999999999999999999) }",
    f"interv 1 program p {{ steer v at post_block[{', '.join(['12'] * 5000)}] scale 1 }}",
    f"interv 1 program p {{ steer v at post_block[{'9' * 5000}] }}",
    f"interv 1 program p {{ steer v at post_block[12] scale {'9' * 5000} }}",
    "interv " + "9" * 5000,
    '{"interv": ' + "9" * 5000 + "}",
    '{"interv": 1, "programs": ' + "[" * 5000 + "]" * 5000 + "}",
    "joy*" + "9" * 5000,
    "joy + " * 5000 + "joy",
)

Client: TypeAlias = httpx.Client
Asked: TypeAlias = tuple[str, str | None]  # a prompt and a program


@dataclass
class Tally:
    """What clients were told: statuses by kind, and whatever was not right."""

    right: Mapping[Asked, str]
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def expect(self, kind: str, reply: httpx.Response, *allowed: int) -> bool:
        """Note a reply; say whether it has a body to look into."""
        with self.lock:
            self.statuses[kind, reply.status_code] += 1
            if reply.status_code not in (allowed or (200,)):
                self.wrong.append(f"{kind}: HTTP {reply.status_code} {reply.text[:200]}")
        return reply.status_code == 200

    def same(self, kind: str, found: object, expected: object) -> None:
        """Note what is not equal to what it must be."""
        if found != expected:
            with self.lock:
                self.wrong.append(f"{kind}: {found!r} is not {expected!r}")

    def of(self, status: int) -> int:
        """Return how many replies had a status of this hundred: 5 for 5xx."""
        return sum(n for (_, code), n in self.statuses.items() if code // 100 == status)


def body(prompt: object, program: str | None = None, **more: Any) -> dict[str, Any]:
    """Return a greedy request for completions."""
    xargs = {} if program is None else {"intervention": program}
    xargs |= more.pop("xargs", {})
    fields = {"model": MODEL, "prompt": prompt, "max_tokens": TOKENS, "temperature": 0, **more}
    return {**fields, "ignore_eos": True, "vllm_xargs": xargs} if xargs else fields | _WHOLE


_WHOLE = {"ignore_eos": True}


def complete(client: Client, prompt: object, program: str | None = None, **more: Any) -> Any:
    return client.post("/v1/completions", json=body(prompt, program, **more))


def texts(reply: httpx.Response) -> list[str]:
    return [one["text"] for one in reply.json()["choices"]]


def alone(server: Operated, prompts: Sequence[str] = PROMPTS) -> dict[Asked, str]:
    """Return the right answers: each request on its own."""
    with server.client() as client:
        return {
            (prompt, program): texts(complete(client, prompt, program))[0]
            for prompt in prompts
            for program in RIGHT
        }


def unedited(client: Client, tally: Tally, rng: random.Random) -> None:
    prompt = rng.choice(PROMPTS)
    reply = complete(client, prompt)
    if tally.expect("unedited", reply):
        tally.same("unedited", texts(reply), [tally.right[prompt, None]])


def edited(client: Client, tally: Tally, rng: random.Random) -> None:
    prompt, program = rng.choice(PROMPTS), rng.choice(RIGHT)
    reply = complete(client, prompt, program)
    if tally.expect("edited", reply):
        tally.same(f"edited by {program}", texts(reply), [tally.right[prompt, program]])


def several(client: Client, tally: Tally, rng: random.Random) -> None:
    program = rng.choice(RIGHT)
    reply = complete(client, list(PROMPTS), program)
    if tally.expect("several prompts", reply):
        expected = [tally.right[prompt, program] for prompt in PROMPTS]
        tally.same(f"several prompts by {program}", texts(reply), expected)


def distinct(client: Client, tally: Tally, rng: random.Random) -> None:
    program = f"joy*{rng.uniform(-1, 1):.6f} + formal*{rng.uniform(-1, 1):.6f}"
    reply = complete(client, rng.choice(PROMPTS), program)
    if tally.expect("distinct", reply):
        tally.same("distinct", reply.json()["usage"]["completion_tokens"], TOKENS)


def huge(client: Client, tally: Tally, rng: random.Random) -> None:
    program = rng.choice(("joy*1e38", "formal*-1e38", "joy*1e38 + formal*1e38", "gated*3e30"))
    # What keeps the norm is finite at any scale.
    status = 200 if program.startswith("gated") else 400
    tally.expect("huge", complete(client, rng.choice(PROMPTS), program), status)


def misnamed(client: Client, tally: Tally, rng: random.Random) -> None:
    stream = rng.random() < 0.5
    reply = complete(client, PROMPTS[0], rng.choice(("jou", "joy + nope", "")), stream=stream)
    tally.expect("misnamed", reply, 400)


def misspelt(client: Client, tally: Tally, rng: random.Random) -> None:
    wrong = rng.choice(({"interventon": "joy"}, {"intervention": 5}, {"intervention_kv": "yes"}))
    reply = complete(client, PROMPTS[0], xargs=wrong, max_tokens=1)
    tally.expect("misspelt", reply, *((200, 400) if "interventon" in wrong else (400,)))
    broken = client.post("/v1/completions", content=b'{"model": "m", "prompt": ')
    tally.expect("no JSON", broken, 400, 422)


def hang_up(client: Client, tally: Tally, rng: random.Random) -> None:
    program = rng.choice(("joy", "files", "probe", "keepm", f"joy*{rng.random():.6f}"))
    asked = body(PROMPTS[1], program, stream=True, max_tokens=300)
    with client.stream("POST", "/v1/completions", json=asked) as reply:
        for number, _ in enumerate(reply.iter_lines()):
            if number > 4:
                break
        tally.statuses["hung up", reply.status_code] += 1


def long_poll(client: Client, tally: Tally, rng: random.Random) -> None:
    handle = f"{rng.getrandbits(64):016x}"
    try:
        reply = client.get(f"/v1/captures/{handle}?wait_s=10", timeout=0.5)
    except httpx.ReadTimeout:
        return
    tally.expect("long poll", reply, 404)


def inline(client: Client, tally: Tally, rng: random.Random) -> None:
    reply = complete(client, PROMPTS[0], rng.choice(HOSTILE), stream=rng.random() < 0.5)
    tally.expect("hostile inline", reply, 400)
    if len(reply.content) > 50_000:
        tally.wrong.append(f"hostile inline: an answer of {len(reply.content)} bytes")


def captured(client: Client, tally: Tally, rng: random.Random) -> None:
    prompt = rng.choice(PROMPTS)
    reply = complete(client, prompt, "probe")
    if not tally.expect("captured", reply):
        return
    tally.same("captured", texts(reply), [tally.right[prompt, "off"]])
    place = f"/v1/captures/{reply.json()['kv_transfer_params']['interv_captures']['handle']}"
    results = client.get(f"{place}?wait_s=60")
    # A record may have been given up for newer ones, or be too old by the time it is asked for.
    if tally.expect("results", results, 200, 404):
        tally.same("results", [one["rows"] > 0 for one in results.json()["results"]], [True])
    tally.expect("rows", client.get(f"{place}/rows/0"), 200, 404)
    tally.expect("forget", client.delete(place), 200, 404)


def unread(client: Client, tally: Tally, rng: random.Random) -> None:
    program = rng.choice(("probe", "files", "shards", "keepm", "files + shards + joy*0.3"))
    tally.expect("unread", complete(client, rng.choice(PROMPTS), program))


def report(client: Client, tally: Tally, rng: random.Random) -> None:
    reply = complete(client, rng.choice(PROMPTS), "joy", xargs={"intervention_report": True})
    if tally.expect("report", reply):
        answer = reply.json()
        # The last token is never fed.
        rows = answer["usage"]["total_tokens"] - 1
        expected = {"joy": {f"post_block[{n}]": rows for n in range(10, 21)}}
        tally.same("report", interv.edited_rows(answer), expected)


def stopped(client: Client, tally: Tally, rng: random.Random) -> None:
    prompt, program = rng.choice(PROMPTS), rng.choice(RIGHT)
    whole = tally.right[prompt, program]
    stop = whole[len(whole) // 2 :][:2] or " "
    reply = complete(client, prompt, program, stop=[stop])
    if tally.expect("stopped", reply):
        tally.same("stopped", texts(reply), [whole[: whole.find(stop)] if stop in whole else whole])


def samples(client: Client, tally: Tally, rng: random.Random) -> None:
    more = {"n": 3, "temperature": 1, "seed": rng.randrange(100)}
    reply = complete(client, PROMPTS[0], "joy", xargs={"intervention_report": True}, **more)
    if tally.expect("samples", reply):
        tally.same("samples", len(reply.json()["choices"]), 3)


Kind: TypeAlias = Callable[[Client, Tally, random.Random], None]
KINDS: tuple[Kind, ...] = (
    unedited,
    edited,
    several,
    distinct,
    huge,
    misnamed,
    misspelt,
    hang_up,
    long_poll,
    inline,
    captured,
    unread,
    report,
    stopped,
    samples,
    edited,
)


def load(server: Operated, tally: Tally, clients: int, seconds: float, seed: int = 0) -> None:
    """Have so many clients ask until the time is over, and their last answers have come."""
    until = time.monotonic() + seconds

    def run(number: int) -> None:
        rng = random.Random(seed * 1000 + number)
        kind = KINDS[number % len(KINDS)]
        with server.client() as client:
            while time.monotonic() < until:
                try:
                    kind(client, tally, rng)
                except Exception as error:  # a client that cannot go on is a wrong answer
                    with tally.lock:
                        tally.wrong.append(f"{kind.__name__}: {type(error).__name__}: {error}")
                    return

    threads = [threading.Thread(target=run, args=(number,)) for number in range(clients)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
