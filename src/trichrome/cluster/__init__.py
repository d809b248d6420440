"""A corpus of any size encoded by the machines of a Ray cluster, mined there, and loaded into stores.

`encode` makes Parquet shards, `folder` is what they lie in, `load` stores them, `mine` draws negatives.
"""

from trichrome.cluster.connect import Cluster
from trichrome.cluster.corpus import Part, Parts, find_parts
from trichrome.cluster.encode import EncodeReport, ModelSource, Progress, encode_part, encode_shards
from trichrome.cluster.folder import EncodedCorpus, is_encoded
from trichrome.cluster.load import create_store_of, load_encoded
from trichrome.cluster.mine import mine_shards
from trichrome.cluster.pool import ClusterPool
from trichrome.cluster.schema import Encoding, Passages, ShardInfo
from trichrome.cluster.shards import read_info, read_shard, verify_shard, write_shard

__all__ = [
    "Cluster",
    "ClusterPool",
    "EncodeReport",
    "EncodedCorpus",
    "Encoding",
    "ModelSource",
    "Part",
    "Parts",
    "Passages",
    "Progress",
    "ShardInfo",
    "create_store_of",
    "encode_part",
    "encode_shards",
    "find_parts",
    "is_encoded",
    "load_encoded",
    "mine_shards",
    "read_info",
    "read_shard",
    "verify_shard",
    "write_shard",
]
