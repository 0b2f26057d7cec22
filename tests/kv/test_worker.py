"""The worker's side of a policy before there are requests."""

from __future__ import annotations

from typing import Any

import pytest

from interv.runtime import compat
from interv.runtime.kv.worker.worker import attach_kv
from tests.kv.test_batch import SETTINGS, First, Second, new, output


class Worker:
    """Looks like a worker whose warm-up runs requests as a scheduler would send them."""

    def __init__(self, runner: Any) -> None:
        self.model_runner = runner
        runner.get_kv_cache_spec = runner.initialize_kv_cache = lambda: None

    def compile_or_warm_up_model(self) -> float:
        long = SETTINGS.limit
        self.model_runner.step(output({"_warmup_0_": long}, new("_warmup_0_", long)))
        return 1.5


@pytest.mark.parametrize("kind", [First, Second])
def test_requests_of_a_warm_up_are_not_compacted(
    monkeypatch: pytest.MonkeyPatch, kind: type
) -> None:
    """They hold blocks that nobody has given them, and there is no cache here to pack."""
    monkeypatch.setattr(compat, "replace_attention", lambda classes: None)
    worker = Worker(kind())
    attach_kv(worker, SETTINGS)
    assert worker.compile_or_warm_up_model() == 1.5
    runner = worker.model_runner
    with pytest.raises(AssertionError):
        runner.step(output({"it": SETTINGS.limit}, new("it", SETTINGS.limit)))
