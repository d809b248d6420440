"""Encoders exported to ONNX: one folder that onnxruntime runs behind the same `encode`."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trichrome.encoder.checkpoints import FORMAT, SETTINGS, load
from trichrome.encoder.encoder import Encoder, TruncationWarning
from trichrome.encoder.flagembedding import VOCABULARY
from trichrome.encoder.onnx_backend import DATA, GRAPH, PRECISIONS, Exported
from trichrome.encoder.onnx_graph import build_graph
from trichrome.encoder.smoothing import smoothing
from trichrome.errors import TrichromeError
from trichrome.extras import require
from trichrome.storage import atomic_folder, default_cache, write_json

#: Products that stay in float32 in an int8 graph, unless the caller says otherwise.
LEAVE_OUT: tuple[str, ...] = ()

#: Grows when graphs are built otherwise, so that none in the cache is taken for a new one.
GRAPH_VERSION = 2

#: The lowest cosine of dense vectors at which an export still counts as the same model.
_SAME = 0.9

#: Texts by which an export is compared with the model it was made from.
_TEXTS = (
    "The ferry leaves the harbour at nine, and the tickets are sold on board (2,50 €).",
    "Der Vertrag wird in zwei Ausfertigungen unterzeichnet.",
    "休暇の申請は二週間前までに人事部へ提出してください。",
    "لا يمكن حذف الملف لأنه مفتوح في برنامج آخر.",
    "x = [f(n) for n in range(10) if n % 2]",
    "a",
)


#: Texts that show which channels of a layer are large: of many scripts, short and longer, prose and code.
_SAMPLES = (
    "How do I reset my password?",
    "The committee approved the budget for the next year after a long debate about the cost of the bridge; "
    "two members voted against it, and the minutes record their reasons in full on pages 14 to 17.",
    "def mean(values: list[float]) -> float:\n    return sum(values) / len(values)",
    "La boulangerie ouvre à six heures et demie, sauf le lundi.",
    "Die Bundesregierung hat den Gesetzentwurf zur Änderung des Wasserhaushaltsgesetzes beschlossen.",
    "El río nace en la sierra y desemboca en el mar después de recorrer 310 km.",
    "Конференция пройдёт в Казани с 3 по 5 июня 2024 года.",
    "図書館は月曜日に休館します。返却は玄関横のポストをご利用ください。",
    "这家公司成立于一九八七年,总部设在深圳。",
    "도서관은 매주 월요일에 쉽니다.",
    "افتتحت المكتبة الجديدة في وسط المدينة يوم الخميس.",
    "הרכבת האחרונה לתל אביב יוצאת בחצות.",
    "पुस्तकालय सोमवार को बंद रहता है।",
    "รถไฟขบวนสุดท้ายออกเวลาเที่ยงคืน",
    "Tàu cuối cùng rời ga lúc nửa đêm.",
    "Kütüphane pazartesi günleri kapalıdır.",
    "Maktaba hufungwa kila Jumatatu.",
    "ls -la /var/log | grep -i error > errors.txt  # 404, 500, 503",
    "moon",
)


@dataclass(frozen=True)
class ExportReport:
    """What an export made.

    folder, precision; megabytes on disk. Against torch in float32 on a few texts: dense, the lowest cosine;
    sparse, the largest difference of a weight; multivector, the lowest cosine of a token. None where the
    encoder has no such output.
    """

    folder: str
    precision: str
    megabytes: float
    dense: float
    sparse: float | None
    multivector: float | None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


def export_onnx(
    encoder: Encoder,
    path: str | Path,
    precision: str = "float32",
    *,
    leave_out: Collection[str] = LEAVE_OUT,
) -> ExportReport:
    """Write an encoder as an ONNX folder, which appears whole or not at all; `trichrome.load` opens it.

    precision: float32, or int8 (a scale a column of the weights, one a product for its activations).
    leave_out: products that stay in float32 all the same, see `onnx_graph.build_graph`. TrichromeError for
    networks other than BERT, RoBERTa and XLM-R, and for an encoder whose outputs are not those of torch after
    the export.
    """
    if precision not in PRECISIONS:
        raise TrichromeError(f"unknown precision {precision!r}; there are {', '.join(PRECISIONS)}")
    network, config = encoder.network, encoder.config
    int8 = precision == "int8"
    onnx = require("onnx", "onnx")
    balances = None
    if int8 and config.backbone is not None:
        samples = [tokens for kind in _kinds(encoder) for tokens in encoder.tokenizer.encode(_SAMPLES, kind)]
        balances = smoothing(network, samples, config.pad_id)
    model = build_graph(network, config, int8=int8, leave_out=leave_out, balances=balances)
    with atomic_folder(path) as folder:
        # weights beside the graph: a protobuf file cannot hold more than 2 GiB
        onnx.save_model(
            model, str(folder / GRAPH), save_as_external_data=True, location=DATA, size_threshold=1024
        )
        (folder / DATA).chmod((folder / GRAPH).stat().st_mode)  # it is written for its owner alone
        encoder.tokenizer.tokenizer.save(str(folder / VOCABULARY))
        write_json(folder / SETTINGS, {"format": FORMAT, **config.to_json()})
        described = Exported(precision, encoder.fingerprint, encoder.dense_dim, encoder.backend.parameters)
        described.write(folder)
        report = _compare(encoder, folder, Path(path), precision)
    return report


def cached_export(encoder: Encoder, precision: str) -> Path:
    """The folder of an encoder's export in trichrome's cache, made where it is not there yet."""
    path = default_cache() / "onnx" / f"{encoder.fingerprint[:32]}-{precision}-{GRAPH_VERSION}"
    if not (path / GRAPH).exists():
        try:
            export_onnx(encoder, path, precision)
        except (TrichromeError, OSError):
            if not (path / GRAPH).exists():  # else another process has made it meanwhile
                raise
    return path


def _kinds(encoder: Encoder) -> tuple[str, ...]:
    """The kinds of texts that it encodes."""
    return ("passage", "query") if encoder.queries_of is None else ("query",)


def _compare(encoder: Encoder, made: Path, path: Path, precision: str) -> ExportReport:
    """Both on the same texts. TrichromeError where the exported one computes something else."""
    texts, kind = list(_TEXTS), _kinds(encoder)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)  # a tiny model may read less than these
        theirs, ours = encoder.encode(texts, kind), load(made).encode(texts, kind)
    assert theirs.dense is not None  # every encoder has it
    assert ours.dense is not None
    dense = float((theirs.dense * ours.dense).sum(1).min())
    sparse = multivector = None
    if theirs.sparse is not None:
        pairs = zip(theirs.sparse_dicts(), ours.sparse_dicts(), strict=True)
        differences = [abs(a.get(i, 0.0) - b.get(i, 0.0)) for a, b in pairs for i in {*a, *b}]
        sparse = max(differences, default=0.0)
    if theirs.multivector is not None and ours.multivector is not None:
        cosines = (theirs.multivector.vectors * ours.multivector.vectors).sum(1)
        multivector = float(cosines.min())
    if dense < _SAME:
        raise TrichromeError(
            f"{encoder.name}: exported in {precision}, it gives other vectors (cosine {dense:.3f}); nothing "
            "was written; leave more products in float32, or export in float32"
        )
    size = sum(file.stat().st_size for file in made.iterdir())
    return ExportReport(str(path), precision, round(size / 1e6, 1), dense, sparse, multivector)
