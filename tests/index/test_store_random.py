"""Any order of changes: both stores hold what a dictionary holds, and find the same."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.index.samples import TOLERANCE, assert_holds, brute_scores, make_store, random_embeddings
from trichrome.embeddings import SIGNALS, Embeddings
from trichrome.index import Store, open_store

POOL = random_embeddings(64, seed=11)
QUERY = random_embeddings(3, seed=12)[1]
IDS = st.lists(st.sampled_from([f"d{i}" for i in range(12)] + ["é", "🌙"]), max_size=6, unique=True)


class BothStores(RuleBasedStateMachine):
    """The model: id → (place in POOL, payload)."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        self.stores: dict[str, Store] = {}
        self.model: dict[str, tuple[int, dict[str, object]]] = {}

    @initialize()
    def create(self) -> None:
        for kind in ("exact", "embedded"):
            self.stores[kind] = make_store(self.folder / kind, kind)

    @rule(ids=IDS, place=st.integers(0, 58), n=st.integers(0, 3))
    def add(self, ids: list[str], place: int, n: int) -> None:
        payloads = [{"n": n, "at": place + i} for i in range(len(ids))]
        for store in self.stores.values():
            store.add(ids, POOL[place : place + len(ids)], payloads)
        for i, id in enumerate(ids):
            self.model[id] = (place + i, payloads[i])

    @rule(ids=IDS)
    def delete(self, ids: list[str]) -> None:
        known = [id for id in ids if self.model.pop(id, None) is not None]
        for store in self.stores.values():
            assert store.delete(ids) == len(known)

    @rule()
    def optimize(self) -> None:
        for store in self.stores.values():
            store.optimize()

    @rule()
    def reopen(self) -> None:
        for kind, store in self.stores.items():
            store.close()
            self.stores[kind] = open_store(self.folder / kind)

    @invariant()
    def hold_what_the_model_holds(self) -> None:
        ids, places = list(self.model), [place for place, _ in self.model.values()]
        documents: Embeddings = POOL[np.array(places, np.int64)]
        payloads = [payload for _, payload in self.model.values()]
        for kind, store in self.stores.items():
            assert_holds(store, ids, documents, payloads)
            assert store.count({"n": 2}) == sum(payload["n"] == 2 for payload in payloads)
            rows = store.rows_of(ids)
            for signal in SIGNALS:
                wanted = brute_scores(signal, QUERY, documents)
                np.testing.assert_allclose(
                    store.scores(signal, QUERY, rows), wanted, atol=TOLERANCE[kind], err_msg=signal
                )
                if signal == "multivector":
                    continue
                found = store.search(signal, QUERY, 5)
                best = np.sort(wanted[wanted > 0] if signal == "sparse" else wanted)[::-1][:5]
                np.testing.assert_allclose(found.scores, best, atol=TOLERANCE[kind], err_msg=signal)
                at = dict(zip(ids, wanted.tolist(), strict=True))
                given = [at[id] for id in store.ids(found.rows)]
                np.testing.assert_allclose(found.scores, given, atol=TOLERANCE[kind], err_msg=signal)

    def teardown(self) -> None:
        for store in self.stores.values():
            store.close()
        shutil.rmtree(self.folder)


TestBothStores = BothStores.TestCase
TestBothStores.settings = settings(
    max_examples=15,
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
