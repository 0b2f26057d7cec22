"""What both Triton kernels do with the columns of a token's slot: weigh, add, count.

The functions work on one token. `c` `[K]` are the weights of the bank's rows, `d` `[K]` those of
the stream itself; a column reads what the columns that it sees have left of the stream.

Arguments that they share: `h` `[H]` the stream in float32, `i` `[H]` and `inside` its places and
which of them exist, `k` `[K]` the places of columns, `at` the slot's first column, `n` how many it
has, `on` `[K]` those that hold for the token, `written` `[K]` the bank rows they add, -1 for none.
"""

from __future__ import annotations

import triton
import triton.language as tl

# A column is 18 words of 32 bits, or 9 of 64; where its fields lie, as in `interv.codegen.tables`.
WIDTH, WIDE = tl.constexpr(18), tl.constexpr(9)
A, B, ALPHA, BETA, STRENGTH = (tl.constexpr(place) for place in range(5))
LOW, HIGH, PROGRAM, KIND, GATED, STORE, BLOCK = (tl.constexpr(place) for place in range(5, 12))
BIT, UNLESS, SEES = (tl.constexpr(place) for place in range(6, 9))

# The numbers of `interv.passes.graph.column.Kind`, ADD being 0.
GATE, KEEP_NORM, REPLACE, JOINT = (tl.constexpr(kind) for kind in range(1, 5))
# Gates from here on are those of earlier sites: `interv.passes.placing.plan.GATES`.
GATES = tl.constexpr(64)
# The columns of a JOINT block are swept until none moves by more than this share of the largest.
SETTLED = tl.constexpr(2.0**-22)
SWEEPS = tl.constexpr(512)
# In what `held` counts, a column that the plain loop does not know.
MIXED = tl.constexpr(1024)


@triton.jit
def held(column, inside, bits, whole, wide):
    """Return which columns hold for a token `[K]`, and how many: MIXED more for each mixed one."""
    wanted = (tl.load(wide + column * WIDE + BIT, mask=inside, other=0) & bits) != 0
    lost = (tl.load(wide + column * WIDE + UNLESS, mask=inside, other=0) & bits) != 0
    on = wanted & (lost == 0)
    kind = tl.load(whole + column * WIDTH + KIND, mask=inside, other=0)
    gate = tl.load(whole + column * WIDTH + GATED, mask=inside, other=-1)
    mixed = (kind != 0) | (gate >= 0)
    return on, tl.sum(tl.where(on, tl.where(mixed, MIXED + 1, 1), 0), 0)


@triton.jit
def _pick(x, k, j):
    """Return x[j]."""
    return tl.sum(tl.where(k == j, x, 0.0), 0)


@triton.jit
def _dot(h, i, inside, bank, row, H):
    """Return bank[row]·h."""
    return tl.sum(h * tl.load(bank + row * H + i, mask=inside, other=0.0), 0)


@triton.jit
def _phi(p, base):
    """Return what an ADD column makes of its reading; `base` is the column, as float32."""
    low, high = tl.load(base + LOW), tl.load(base + HIGH)
    clamped = tl.minimum(tl.maximum(p, low), high)
    moved = tl.load(base + STRENGTH) * (clamped - p)
    return tl.load(base + ALPHA) + tl.load(base + BETA) * p + moved


@triton.jit
def weigh(
    h, i, inside, k, at, n, on, wanted, written, bank, gram, whole, real, wide, rows, H, gate
):  # fmt: skip
    """Return the weights of a token's columns, `c` and `d`; `wanted` is what `held` counted."""
    d = tl.zeros_like(written).to(tl.float32)
    if wanted < MIXED:
        c = _plain(h, i, inside, k, at, n, on, written, bank, gram, whole, real, wide, rows, H)
    else:
        c, d = _mixed(
            h, i, inside, k, at, n, on, written, bank, gram, whole, real, wide, rows, H, gate
        )  # fmt: skip
    return c, d


@triton.jit
def _plain(h, i, inside, k, at, n, on, written, bank, gram, whole, real, wide, rows, H):
    """Return the weights of columns that are all ADD and have no gate."""
    c = tl.zeros_like(written).to(tl.float32)
    for j in range(n):
        row = tl.load(whole + (at + j) * WIDTH + A).to(tl.int64)
        p = 0.0
        if row >= 0:
            p += _dot(h, i, inside, bank, row, H)
            seen = ((tl.load(wide + (at + j) * WIDE + SEES) >> k) & 1) != 0
            g = tl.load(gram + row * rows + written, mask=seen & (written >= 0), other=0.0)
            p += tl.sum(g * c, 0)
        c = tl.where((k == j) & on, _phi(p, real + (at + j) * WIDTH), c)
    return c


@triton.jit
def _mixed(
    h, i, inside, k, at, n, on, written, bank, gram, whole, real, wide, rows, H, gate
):  # fmt: skip
    """Return the weights of columns of any kind, `c` and `d`; `gate` `[G]` is the token's."""
    c = tl.zeros_like(written).to(tl.float32)
    d = tl.zeros_like(c)
    g = tl.zeros_like(c)
    solved = 0
    for j in range(n):
        if _pick(on.to(tl.float32), k, j) != 0.0:
            base = at + j
            kind = tl.load(whole + base * WIDTH + KIND)
            sees = ((tl.load(wide + base * WIDE + SEES) >> k) & 1) != 0
            sees = sees & (written >= 0)
            rho = 1.0 + tl.sum(tl.where(sees, d, 0.0), 0)
            if kind == JOINT:
                if j >= solved:
                    size = tl.load(whole + base * WIDTH + BLOCK)
                    start = _readings(
                        h, i, inside, k, at, j, size, written, c, d, bank, gram, whole, wide, rows,
                        H,
                    )  # fmt: skip
                    c = _solve(start, k, at, j, size, on, written, c, gram, whole, real, wide, rows)
                    solved = j + size
            elif kind == KEEP_NORM:
                s = _weight(g, k, base, whole, gate) * tl.load(real + base * WIDTH + ALPHA)
                if s != 0.0:
                    seen = tl.where(sees, c, 0.0)
                    r = _keep(h, i, inside, k, at, j, s, rho, seen, bank, whole, H)
                    d = tl.where(k == j, (r - 1.0) * rho, d)
                    c = tl.where(k == j, r * s, tl.where(sees, r * c, c))
            elif kind == REPLACE:
                w = _weight(g, k, base, whole, gate) * tl.load(real + base * WIDTH + STRENGTH)
                d = tl.where(k == j, -w * rho, d)
                left = tl.where(sees, (1.0 - w) * c, c)
                c = tl.where(k == j, w * tl.load(real + base * WIDTH + ALPHA), left)
            else:
                row = tl.load(whole + base * WIDTH + A).to(tl.int64)
                p = 0.0
                if row >= 0:
                    near = tl.load(gram + row * rows + written, mask=sees, other=0.0)
                    p = rho * _dot(h, i, inside, bank, row, H) + tl.sum(near * c, 0)
                if kind == GATE:
                    low = tl.load(real + base * WIDTH + LOW)
                    value = _sigmoid(tl.load(real + base * WIDTH + ALPHA) * (p - low))
                    g = tl.where(k == j, value, g)
                    store = tl.load(whole + base * WIDTH + STORE)
                    if store >= 0:
                        tl.store(gate + store, value)
                else:
                    weight = _weight(g, k, base, whole, gate)
                    c = tl.where(k == j, weight * _phi(p, real + base * WIDTH), c)
    return c, d


@triton.jit
def _weight(g, k, base, whole, gate):
    """Return a column's weight: a gate of this update from `g`, of an earlier site from `gate`."""
    index = tl.load(whole + base * WIDTH + GATED)
    weight = 1.0
    if index >= GATES:
        weight = tl.load(gate + (index - GATES))
    elif index >= 0:
        weight = _pick(g, k, index)
    return weight


@triton.jit
def _sigmoid(x):
    """Return 1 / (1 + exp(-x)) without a number that is too large to hold."""
    e = tl.exp(-tl.abs(x))
    return tl.where(x >= 0.0, 1.0, e) / (1.0 + e)


@triton.jit
def _keep(h, i, inside, k, at, j, s, rho, seen, bank, whole, H):
    """Return ‖y‖ / ‖y + s·bank[b]‖, where y is `rho * h` and what the seen columns added."""
    y = rho * h
    for m in range(j):
        scale = _pick(seen, k, m)
        if scale != 0.0:
            row = tl.load(whole + (at + m) * WIDTH + B).to(tl.int64)
            y += scale * tl.load(bank + row * H + i, mask=inside, other=0.0)
    before = tl.sum(y * y, 0)
    row = tl.load(whole + (at + j) * WIDTH + B).to(tl.int64)
    y += s * tl.load(bank + row * H + i, mask=inside, other=0.0)
    after = tl.sum(y * y, 0)
    return tl.where(after > 0.0, tl.sqrt(before / tl.where(after > 0.0, after, 1.0)), 1.0)


@triton.jit
def _readings(
    h, i, inside, k, at, first, size, written, c, d, bank, gram, whole, wide, rows, H
):  # fmt: skip
    """Return what the columns of a JOINT block read before any of them adds, `[K]`."""
    start = tl.zeros_like(c)
    for j in range(first, first + size):
        row = tl.load(whole + (at + j) * WIDTH + A).to(tl.int64)
        sees = ((tl.load(wide + (at + j) * WIDE + SEES) >> k) & 1) != 0
        sees = sees & (written >= 0)
        near = tl.load(gram + row * rows + written, mask=sees, other=0.0)
        rho = 1.0 + tl.sum(tl.where(sees, d, 0.0), 0)
        p = rho * _dot(h, i, inside, bank, row, H) + tl.sum(near * c, 0)
        start = tl.where(k == j, p, start)
    return start


@triton.jit
def _solve(start, k, at, first, size, on, written, c, gram, whole, real, wide, rows):
    """Return `c` with the weights under which all of a JOINT block's columns hold at once."""
    block = (k >= first) & (k < first + size) & (written >= 0)
    sweep, moved, limit = 0, 1.0, 0.0
    while (sweep < SWEEPS) & (moved > limit):
        moved, largest = 0.0, 0.0
        for j in range(first, first + size):
            base = real + (at + j) * WIDTH
            row = tl.load(whole + (at + j) * WIDTH + A).to(tl.int64)
            sees = ((tl.load(wide + (at + j) * WIDE + SEES) >> k) & 1) != 0
            near = tl.load(gram + row * rows + written, mask=sees & block, other=0.0)
            p = tl.sum(tl.where(k == j, start, near * c), 0)
            new = tl.minimum(tl.maximum(p, tl.load(base + LOW)), tl.load(base + HIGH)) - p
            step = tl.where((k == j) & on, new - c, 0.0)
            moved = tl.maximum(moved, tl.max(tl.abs(step), 0))
            largest = tl.maximum(largest, tl.abs(p))
            c = tl.where((k == j) & on, new, c)
        limit = tl.where(sweep == 0, SETTLED * largest, limit)
        sweep += 1
    return c


@triton.jit
def add(own, h, i, inside, k, at, n, c, d, bank, whole, H):
    """Return `own` `[H]` and what the weights add to it."""
    for j in range(n):
        scale = _pick(c, k, j)
        if scale != 0.0:
            row = tl.load(whole + (at + j) * WIDTH + B).to(tl.int64)
            own += scale * tl.load(bank + row * H + i, mask=inside, other=0.0)
    rest = tl.sum(d, 0)
    if rest != 0.0:
        own += rest * h
    return own


@triton.jit
def count(fired, k, column, inside, at, n, whole, total, seats, chair, seat_stride):
    """Count a row once for each program: at the first of its columns that fired."""
    for j in range(n):
        program = tl.load(whole + (at + j) * WIDTH + PROGRAM)
        mine = fired & (tl.load(whole + column * WIDTH + PROGRAM, mask=inside, other=-1) == program)
        earlier = tl.sum((mine & (k < j)).to(tl.int32), 0)
        if (tl.sum((mine & (k == j)).to(tl.int32), 0) > 0) & (earlier == 0):
            tl.atomic_add(total + program, 1, sem="relaxed")
            if chair >= 0:
                tl.atomic_add(seats + chair * seat_stride + program, 1, sem="relaxed")
