"""Toy transformers with the residual streams of real ones, and an oracle that edits by hooks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from interv.document.sites import Site
from tests.splice import ops

H, LAYERS, VOCABULARY = 8, 3, 20
# Names of layers: one keeps what earlier tokens left, one does not.
CACHED, STATELESS = "toy.attn", "toy.experts"
# Given a site and its stream [T, H], what the stream gains there.
Change = Callable[[Site, Tensor], Tensor]
AddNorm = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Norm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return ops.norm(x)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.out = nn.Linear(H, H), nn.Linear(H, H)

    def forward(self, x: Tensor) -> Tensor:
        q = self.q(x)
        output = torch.empty_like(q)
        ops.mix(q, output.view(-1, H), CACHED)
        return self.out(output)


class InPlaceAttention(Attention):
    """Make the output in pieces, in every way that writes into memory that is there."""

    def forward(self, x: Tensor) -> Tensor:
        branch = super().forward(x)
        out = torch.empty_like(branch)
        out.view(-1, H).copy_(branch)
        out.copy_(torch.tanh(out))
        torch.mul(branch, 2.0, out=out)
        flat = out.view(-1, H)
        flat[:, 2:6] += branch[:, :4]
        out.narrow(-1, 6, 2).mul_(1.5)
        out[:, 7] = branch[:, 0]
        return out


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(H, 2 * H), nn.Linear(2 * H, H)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(torch.relu(self.up(x)))


class Block(nn.Module):
    """What blocks have in common; `branch` is the module whose output the attention adds."""

    branch: nn.Module

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = Norm(), Norm()
        self.attn, self.mlp = Attention(), Mlp()
        self.branch = self.attn


class PairBlock(Block):
    """Hand `(hidden, residual)` on, like Llama's."""

    def __init__(self, add_norm: AddNorm) -> None:
        super().__init__()
        self.add_norm = add_norm

    def forward(self, h: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        if residual is None:
            residual, h = h.clone(), ops.norm(h)
        else:
            h, residual = self.add_norm(h, residual)
        h, residual = self.add_norm(self.attn(h), residual)
        return self.mlp(h), residual


class SingleBlock(Block):
    """One tensor, like GPT-2's."""

    def forward(self, h: Tensor) -> Tensor:
        h = h + self.attn(self.norm1(h))
        return self.mlp(self.norm2(h)) + h


class InPlaceBlock(SingleBlock):
    """Write the attention's output in place."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = self.branch = InPlaceAttention()


class InPlaceSumBlock(Block):
    """Take the branch's memory for the sum."""

    def forward(self, h: Tensor) -> Tensor:
        branch = self.attn(self.norm1(h))
        branch += h
        out = self.mlp(self.norm2(branch))
        out.add_(branch)
        return out


class ReusingBlock(Block):
    """Add the branch in a wider dtype, and write over it between the cast and the sum."""

    def forward(self, h: Tensor) -> Tensor:
        branch = self.attn(self.norm1(h))
        wide = branch.to(torch.float64)
        branch.copy_(h)
        h = (wide + h.to(torch.float64)).to(torch.float32)
        return h + self.mlp(self.norm2(h))


class BorrowingBlock(SingleBlock):
    """Attend by modules that another block has too, each between projections of its own."""

    def __init__(self, shared: Attention) -> None:
        super().__init__()
        self.shared, self.attn = shared, nn.Linear(H, H)
        self.branch = self.attn

    def forward(self, h: Tensor) -> Tensor:
        h = h + self.attn(self.shared(self.norm1(h)))
        return self.mlp(self.norm2(h)) + h


class PostNormBlock(Block):
    """Normalise what the branches give, like OLMo 2's."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = self.norm1

    def forward(self, h: Tensor) -> Tensor:
        h = h + self.norm1(self.attn(h))
        return h + self.norm2(self.mlp(h))


class ParallelBlock(Block):
    """Attention and MLP side by side, like Cohere's."""

    def forward(self, h: Tensor) -> Tensor:
        x = self.norm1(h)
        return h + self.attn(x) + self.mlp(x)


class NoAttentionBlock(Block):
    def forward(self, h: Tensor) -> Tensor:
        h = h + ops.experts(h, STATELESS)
        return h + self.mlp(self.norm1(h))


class GatedBlock(Block):
    """Read the attention's output for something besides the stream."""

    def forward(self, h: Tensor) -> Tensor:
        branch = self.attn(self.norm1(h))
        gate = torch.sigmoid(branch)
        h = h + branch
        return h + gate * self.mlp(self.norm2(h))


class LateGatedBlock(Block):
    """Write over the attention's output after the stream has it, and read that."""

    def forward(self, h: Tensor) -> Tensor:
        branch = self.attn(self.norm1(h))
        h = h + branch
        return h + branch.sigmoid_() * self.mlp(self.norm2(h))


class Model(nn.Module):
    """Blocks between an embedding and a last norm."""

    def __init__(self, make: Callable[[], Block], add_norm: AddNorm | None = None) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, H)
        self.blocks = nn.ModuleList(make() for _ in range(LAYERS))
        self.add_norm = add_norm

    def forward(self, ids: Tensor) -> Tensor:
        return self.run(self.embed(ids))

    def run(self, h: Tensor) -> Tensor:
        if self.add_norm is None:
            for block in self.blocks:
                h = block(h)
            return ops.norm(h)
        residual: Tensor | None = None
        for block in self.blocks:
            h, residual = block(h, residual)
        assert residual is not None
        return self.add_norm(h, residual)[0]


class Looped(Model):
    """Run all blocks in turn, twice."""

    def run(self, h: Tensor) -> Tensor:
        for block in (*self.blocks, *self.blocks):
            h = block(h)
        return ops.norm(h)


class Doubled(Model):
    """Run each block twice before the next one."""

    def run(self, h: Tensor) -> Tensor:
        for block in self.blocks:
            h = block(block(h))
        return ops.norm(h)


class Folded(Model):
    """Run a part of the first block within the second one's time."""

    def run(self, h: Tensor) -> Tensor:
        first, second, third = self.blocks
        h = second(h + first.attn(h)) + first.mlp(h)
        return third(h)


class FourStreams(Model):
    """Carry four streams side by side, and one of them through each block."""

    def run(self, h: Tensor) -> Tensor:
        streams = torch.stack([h, h.sin(), h.cos(), h.tanh()])
        for block in self.blocks:
            streams = streams + block(streams[0])
        return streams.mean(dim=0)


class FromEmbeddings(Model):
    """Take the stream as an input, and look at it before the first block does."""

    def forward(self, ids: Tensor) -> Tensor:
        scale = ids.abs().sum(dim=-1, keepdim=True)
        return self.run(ids) * scale


class FromView(FromEmbeddings):
    """Take the stream as an input of another shape, whose memory the view shares."""

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(ids.view(-1, H))


class FromCast(Model):
    """Make the stream in a wider dtype than it is carried in."""

    def forward(self, ids: Tensor) -> Tensor:
        return self.run(torch.sin(self.embed(ids).to(torch.float64)).to(torch.float32))


class Watched(Model):
    """Return the stream of two layers beside the answer, as for a draft head that reads them."""

    def forward(self, ids: Tensor) -> Tensor:
        h, residual, seen = self.embed(ids), None, []
        for layer, block in enumerate(self.blocks):
            if layer in (0, 2):
                seen.append(h if residual is None else h + residual)
            if self.add_norm is None:
                h = block(h)
            else:
                h, residual = block(h, residual)
        last = ops.norm(h) if self.add_norm is None else self.add_norm(h, residual)[0]
        return last, *seen


class SkipModel(Model):
    """Carry a second tensor of the stream's shape past every block."""

    def forward(self, ids: Tensor) -> Tensor:
        h = self.embed(ids)
        first, second = torch.tanh(h), torch.sin(h)
        return self.run(h) * first * second


class TwoStreams(Model):
    """Carry one more tensor, which never joins the stream by a sum."""

    def forward(self, ids: Tensor) -> Tensor:
        h = self.embed(ids)
        return self.run(h) * torch.tanh(h)


def pair(add_norm: AddNorm) -> Model:
    return Model(lambda: PairBlock(add_norm), add_norm)


def watched_pair(add_norm: AddNorm) -> Model:
    return Watched(lambda: PairBlock(add_norm), add_norm)


def edited(model: Model, ids: Tensor, change: Change, post_attn: bool = True) -> Tensor:
    """Run a model with every site edited by hooks that know nothing of graphs."""
    handles, entered = [], {}
    for layer, block in enumerate(model.blocks):

        def before(_: nn.Module, args: tuple, layer: int = layer) -> tuple:
            h, *rest = args
            stream = h if rest in ([], [None]) else h + rest[0]
            h = h + change(Site("pre_attn", layer), stream)
            entered[layer] = h if rest in ([], [None]) else h + rest[0]
            return (h, *rest)

        def middle(_: nn.Module, args: tuple, out: Tensor, layer: int = layer) -> Tensor:
            return out + change(Site("post_attn", layer), entered[layer] + out)

        def after(_: nn.Module, args: tuple, out: object, layer: int = layer) -> object:
            h, *rest = out if isinstance(out, tuple) else (out,)
            h = h + change(Site("post_block", layer), h if not rest else h + rest[0])
            return (h, *rest) if rest else h

        handles += [block.register_forward_pre_hook(before), block.register_forward_hook(after)]
        if post_attn:
            handles.append(block.branch.register_forward_hook(middle))
    try:
        return model(ids)
    finally:
        for handle in handles:
            handle.remove()
