"""The arithmetic of docs/scale.md: measured figures times assumptions, as Markdown tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from statistics import median
from typing import Any

HOURS_A_MONTH = 730.0


@dataclass(frozen=True)
class Figures:
    """plan, encode: benchmarks/results/*.json. assumed: plan_assumptions.json."""

    plan: Mapping[str, Any]
    encode: Mapping[str, Any]
    assumed: Mapping[str, Any]

    def of(self, name: str) -> float:
        """An assumption's value."""
        return float(self.assumed[name]["value"])

    @property
    def documents(self) -> int:
        return int(self.of("documents"))

    @property
    def tokens(self) -> float:
        """Of a passage, prompt and special tokens included."""
        return float(self.plan["tokens"] / self.plan["passages"])

    def shard_bytes(self, *columns: str) -> float:
        """Of a passage."""
        there: Mapping[str, int] = self.plan["shard_bytes"]
        return sum(there.get(name, 0) for name in columns) / int(self.plan["passages"])

    @property
    def all_shard_bytes(self) -> float:
        return self.shard_bytes(*self.plan["shard_bytes"])

    @property
    def tokens_per_second(self) -> float:
        """Of the encode benchmark's machine in bfloat16, all three outputs; the median of its rounds."""
        runs = [r["trichrome-bf16@default"]["seconds"] for r in self.encode["rounds"] if _bf16(r)]
        return float(self.encode["tokens"] / median(runs))

    @property
    def efficiency(self) -> float:
        """What of the encoder's rate reaches the shards: reading, cutting and writing take the rest."""
        rates = self.plan["passages_per_second"]
        return float(min(1.0, rates["cluster"] / rates["encoder"]))

    @property
    def machine_rate(self) -> float:
        """Passages a second of one assumed machine."""
        pairs = self.of("cores_a_machine") / float(self.encode["machine"]["cores"])
        one = self.tokens_per_second / self.tokens * self.efficiency
        return one * pairs * self.of("scaling")

    @property
    def encode_hours(self) -> float:
        """Machine-hours for all passages."""
        return self.documents / self.machine_rate / 3600

    @property
    def encode_machines(self) -> int:
        return ceil(self.encode_hours / (24 * self.of("days")))

    def store_bytes(self, kind: str) -> dict[str, float]:
        """Of a passage in a store: each signal, with the payload and the keys counted with dense."""
        sizes = self.plan["store_bytes"][kind]
        dense, both, all_three = (
            float(sizes[name]) for name in ("dense", "dense+sparse", "dense+sparse+multivector")
        )
        return {"dense": dense, "sparse": both - dense, "multivector": all_three - both}


def _bf16(row: Mapping[str, Any]) -> bool:
    return "trichrome-bf16@default" in row


def measured(f: Figures) -> str:
    """What was measured, by which command."""
    plan, rates = f.plan, f.plan["passages_per_second"]
    rows = [
        ("passages measured", f"{plan['passages']:,}", "plan"),
        ("tokens a passage", f"{f.tokens:.1f}", "plan"),
        ("characters a passage", f"{plan['characters'] / plan['passages']:.0f}", "plan"),
        ("tokens/s, all three outputs, bfloat16, 2 cores", f"{f.tokens_per_second:,.0f}", "encode"),
        (f"passages/s of the encoder alone, {plan['dtype']}", f"{rates['encoder']:,.1f}", "plan"),
        ("passages/s into shards, the same run", f"{rates['cluster']:,.1f}", "plan"),
        (
            "products of a query and a passage a second, 2 cores",
            f"{plan['products_per_second']:,.0f}",
            "plan",
        ),
        *(
            (f"passages/s loaded into a store ({kind})", f"{sizes['load_per_second']:,.0f}", "plan")
            for kind, sizes in plan["store_bytes"].items()
        ),
    ]
    lines = ["| measured | | benchmark |", "|---|--:|---|"]
    lines += [f"| {what} | {value} | `{by}` |" for what, value, by in rows]
    machine = f.encode["machine"]
    return "\n".join([*lines, "", f"{machine['processor']}, {machine['cores']} cores, model `small`."]) + "\n"


def assumptions(f: Figures) -> str:
    """What was not measured."""
    lines = [f"| assumed ({f.assumed['date']}) | | why |", "|---|--:|---|"]
    for name, row in f.assumed.items():
        if name != "date":
            value = f"{row['value']:,}" if isinstance(row["value"], int) else f"{row['value']}"
            lines.append(f"| {name.replace('_', ' ')} | {value} {row['unit']} | {row['why']} |")
    return "\n".join(lines) + "\n"


def bytes_table(f: Figures) -> str:
    """Bytes a passage, by signal, in shards and stores; and of all passages."""
    columns = {
        "dense": ("dense",),
        "sparse": ("sparse_ids", "sparse_weights"),
        "multivector": ("multivector",),
        "text, metadata, ids": ("payload", "id", "lang", "key", "document_key", "rest"),
    }
    stores = {kind: f.store_bytes(kind) for kind in f.plan["store_bytes"]}
    lines = [
        "| bytes a passage | shards | " + " | ".join(f"store `{kind}`" for kind in stores) + " |",
        "|---|--:|" + "--:|" * len(stores),
    ]
    for name, of in columns.items():
        cells = [f"{f.shard_bytes(*of):,.0f}"]
        cells += [f"{sizes[name]:,.0f}" if name in sizes else "with dense" for sizes in stores.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    sums = [f.all_shard_bytes, *(sum(sizes.values()) for sizes in stores.values())]
    lines.append("| **all** | " + " | ".join(f"**{total:,.0f}**" for total in sums) + " |")
    everything = " | ".join(_terabytes(total * f.documents) for total in sums)
    lines.append(f"| **{f.documents:,} passages** | {everything} |")
    return "\n".join(lines) + "\n"


def encoding(f: Figures) -> str:
    """Machines, time and money for the one-off encoding."""
    cost = f.encode_hours * f.of("cores_a_machine") * f.of("price_spot_vcpu_hour")
    keep = f.all_shard_bytes * f.documents / 1e9 * f.of("price_files_gb_month")
    rows = [
        ("passages/s of a machine", f"{f.machine_rate:,.0f}"),
        ("machine-hours", f"{f.encode_hours:,.0f}"),
        (f"machines to be done in {f.of('days'):g} days", f"{f.encode_machines:,}"),
        ("days with these", f"{f.encode_hours / f.encode_machines / 24:.1f}"),
        ("cost, interruptible machines", f"${cost:,.0f}"),
        ("shards on disk", _terabytes(f.all_shard_bytes * f.documents)),
        ("cost of keeping the shards, a month", f"${keep:,.0f}"),
        ("shards of 20 minutes each, one actor of 2 cores", f"{_shards(f):,}"),
    ]
    return _two_columns("encoding, once", rows)


def _shards(f: Figures) -> int:
    rate = f.machine_rate / f.of("cores_a_machine") * 2
    return ceil(f.documents / (rate * 20 * 60))


def index(f: Figures) -> str:
    """Machines and money for serving, with all three signals and without token vectors."""
    sizes = f.store_bytes("embedded")
    lines = [
        f"| index of {f.documents:,} passages, {f.of('copies'):g} copies | all three signals "
        "| dense + sparse |",
        "|---|--:|--:|",
    ]
    with_all, without = sum(sizes.values()), sizes["dense"] + sizes["sparse"]
    # what every query touches: dense vectors and postings; texts and token vectors are read for a few hits
    hot = f.shard_bytes("dense") * 2 + sizes["sparse"]
    plans = [_machines(f, disk, hot) for disk in (with_all, without)]
    rows: list[tuple[str, Callable[[dict[str, float]], str]]] = [
        ("disk", lambda p: _terabytes(p["disk"])),
        ("memory for dense vectors in float32 and sparse postings", lambda p: _terabytes(p["memory"])),
        ("machines for the disk", lambda p: f"{p['for_disk']:,.0f}"),
        ("machines for the memory", lambda p: f"{p['for_memory']:,.0f}"),
        ("machines", lambda p: f"{p['machines']:,.0f}"),
        ("passages on one", lambda p: f"{p['each']:,.0f}"),
        ("hours to load them, one process a machine", lambda p: f"{p['load_hours']:,.1f}"),
        ("cost a month", lambda p: f"${p['cost']:,.0f}"),
    ]
    lines += [f"| {name} | " + " | ".join(show(p) for p in plans) + " |" for name, show in rows]
    return "\n".join(lines) + "\n"


def _machines(f: Figures, disk: float, memory: float) -> dict[str, float]:
    every = f.documents * f.of("copies")
    for_disk = ceil(every * disk / 1e9 / (f.of("disk_a_machine") * f.of("disk_filled")))
    for_memory = ceil(every * memory / 1e9 / (f.of("memory_a_machine") * f.of("memory_filled")))
    machines = max(for_disk, for_memory)
    load = float(f.plan["store_bytes"]["embedded"]["load_per_second"])
    vcpus = machines * f.of("cores_a_machine") * f.of("price_vcpu_hour") * HOURS_A_MONTH
    disks = machines * f.of("disk_a_machine") * f.of("price_nvme_gb_month")
    return {
        "disk": every * disk,
        "memory": every * memory,
        "for_disk": for_disk,
        "for_memory": for_memory,
        "machines": machines,
        "each": every / machines,
        "load_hours": every / machines / load / 3600,
        "cost": vcpus + disks,
    }


def mining(f: Figures) -> str:
    """Passes, bytes and time of mining on the machines that encoded."""
    passes = ceil(f.of("queries_mined") / f.of("block"))
    machines = f.encode_machines
    read = f.shard_bytes("dense") * f.documents * passes
    reading = read / 1e6 / f.of("disk_rate") / machines / 3600
    products = f.of("queries_mined") * f.documents
    rate = f.plan["products_per_second"] / f.plan["cores"] * f.of("cores_a_machine") * f.of("scaling")
    computing = products / rate / machines / 3600
    hours = max(reading, computing)
    cost = hours * machines * f.of("cores_a_machine") * f.of("price_spot_vcpu_hour")
    rows = [
        ("queries", f"{f.of('queries_mined'):,.0f}"),
        ("passes over the dense column", f"{passes:,}"),
        ("read in all", _terabytes(read)),
        (f"hours of reading, {machines} machines", f"{reading:,.1f}"),
        (f"hours of computing, {machines} machines", f"{computing:,.1f}"),
        ("cost, interruptible machines", f"${cost:,.0f}"),
    ]
    return _two_columns("mining, dense candidates", rows)


def _two_columns(title: str, rows: list[tuple[str, str]]) -> str:
    lines = [f"| {title} | |", "|---|--:|", *(f"| {name} | {value} |" for name, value in rows)]
    return "\n".join(lines) + "\n"


def _terabytes(number: float) -> str:
    return f"{number / 1e12:,.2f} TB" if number >= 1e12 else f"{number / 1e9:,.0f} GB"


TABLES: Mapping[str, Callable[[Figures], str]] = {
    "measured": measured,
    "assumptions": assumptions,
    "bytes": bytes_table,
    "encoding": encoding,
    "index": index,
    "mining": mining,
}
