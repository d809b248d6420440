"""Our network computes what transformers computes from the same weights."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from tests.tiny import tiny_encoder
from trichrome.encoder import hf_names
from trichrome.encoder.model import Backbone
from trichrome.encoder.positions import extend_positions
from trichrome.errors import TrichromeError


@pytest.mark.parametrize("first", [0, 2], ids=["bert", "xlm-roberta"])
def test_hidden_states_equal_those_of_transformers(first: int, tmp_path: Path) -> None:
    encoder = tiny_encoder()
    shape = encoder.config.backbone
    assert shape is not None
    shape = type(shape)(**{**shape.__dict__, "first_position": first, "token_types": 2 - first // 2})
    torch.manual_seed(0)
    ours = Backbone(shape).eval()
    config = hf_names.hf_config(shape, pad=1, bos=0, eos=2)
    from transformers import AutoConfig

    theirs = AutoModel.from_config(
        AutoConfig.for_model(config.pop("model_type"), **config), attn_implementation="eager"
    ).eval()
    state = theirs.state_dict()
    ours.load_state_dict(hf_names.from_hf(state, shape.layers, "here"))
    ids = torch.randint(4, shape.vocab_size, (3, 20))
    mask = torch.arange(20) < torch.tensor([20, 7, 1])[:, None]
    ids[~mask] = 1
    with torch.no_grad():
        a, b = ours(ids, mask), theirs(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    torch.testing.assert_close(a[mask], b[mask], atol=1e-5, rtol=0)
    back = hf_names.to_hf(ours.state_dict(), shape.layers)
    assert all(torch.equal(back[k], state[k]) for k in back)


def test_a_missing_weight_is_named() -> None:
    shape = tiny_encoder().config.backbone
    assert shape is not None
    state = hf_names.to_hf(Backbone(shape).state_dict(), shape.layers)
    del state["encoder.layer.1.output.dense.bias"]
    with pytest.raises(
        TrichromeError, match=r"somewhere: the weights lack encoder\.layer\.1\.output\.dense\.bias"
    ):
        hf_names.from_hf(state, shape.layers, "somewhere")


@pytest.mark.parametrize("method", ["tile", "interpolate"])
def test_extended_positions_read_longer_texts(method: str) -> None:
    backbone = tiny_encoder().network.backbone
    assert isinstance(backbone, Backbone)
    before = backbone.position.weight.clone()
    ids = torch.randint(4, 40, (1, 8192))
    with pytest.raises(ValueError, match="8192 tokens, but the position table takes 64"):
        backbone(ids)
    config = extend_positions(backbone, 8192, method)  # type: ignore[arg-type]
    assert config.max_tokens == 8192
    assert config.positions == 8194
    table = backbone.position.weight
    torch.testing.assert_close(table[:3], before[:3])  # the rows before the first position, and the first
    torch.testing.assert_close(table[-1], before[-1])
    if method == "tile":
        torch.testing.assert_close(table[2 + 64 : 2 + 128], before[2:])
    with torch.no_grad():
        assert backbone(ids).shape == (1, 8192, 32)
    with pytest.raises(TrichromeError, match="already takes"):
        extend_positions(backbone, 100)
