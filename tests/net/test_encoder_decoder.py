"""Step-by-step decoding with a cache returns the same logits as processing all tokens at once."""

from functools import partial

import pytest
import torch
from torch import nn

from htr_lightning.net.attention import CrossAttention
from htr_lightning.net.backbone import ResidualBackbone
from htr_lightning.net.crnn import CRNN
from htr_lightning.net.encoder_decoder import CharacterDecoder, EncoderDecoder
from htr_lightning.net.recurrent_decoder import RecurrentDecoder
from htr_lightning.net.transformer_decoder import TransformerDecoder, sinusoids

DECODERS = [
    partial(TransformerDecoder, width=24, depth=2, heads=3, dropout=0.3),
    partial(RecurrentDecoder, width=24, attention=10, kernel=5, dropout=0.3),
]


@pytest.fixture(params=DECODERS, ids=["transformer", "recurrent"])
def decoder(request: pytest.FixtureRequest) -> CharacterDecoder:
    torch.manual_seed(0)
    return request.param(11, 14).eval()


def memory(lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(len(lengths), max(lengths), 14), torch.tensor(lengths)


@torch.inference_mode()
def test_step_by_step_is_all_at_once(decoder: CharacterDecoder) -> None:
    seen, lengths = memory([9, 4, 1])
    tokens = torch.randint(11, (3, 12))
    whole = decoder(seen, lengths, tokens)
    state, written = decoder.start(seen, lengths), []
    for column in tokens.unbind(1):
        logits, state = decoder.step(column, state)
        written.append(logits)
    torch.testing.assert_close(torch.stack(written, 1), whole, atol=1e-5, rtol=0)
    assert whole.std() > 1e-2


@torch.inference_mode()
def test_every_token_depends_on_all_earlier_ones_and_no_later_one(decoder: CharacterDecoder) -> None:
    seen, lengths = memory([9])
    tokens = torch.randint(11, (1, 8))
    other = tokens.clone()
    other[0, 5] = (tokens[0, 5] + 1) % 11
    change = (decoder(seen, lengths, tokens) - decoder(seen, lengths, other)).abs().amax(2)[0]
    assert not change[:5].any()
    assert (change[5:] > 0).all()


@torch.inference_mode()
def test_all_of_a_memory_is_attended_to_and_no_padding(decoder: CharacterDecoder) -> None:
    seen, lengths = memory([9, 4, 1])
    tokens = torch.randint(11, (3, 6))
    together = decoder(seen, lengths, tokens)
    for row, length in enumerate(lengths.tolist()):
        alone = decoder(seen[row : row + 1, :length], lengths[row : row + 1], tokens[row : row + 1])
        torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=0)
        for place in range(length):
            other = seen[row : row + 1, :length].clone()
            other[0, place] += 1
            assert (decoder(other, lengths[row : row + 1], tokens[row : row + 1]) - alone).abs().max() > 1e-4


@torch.inference_mode()
def test_rows_of_a_state_can_be_repeated_and_dropped(decoder: CharacterDecoder) -> None:
    seen, lengths = memory([9, 4, 7])
    tokens = torch.randint(11, (3, 4))
    state, rows = decoder.start(seen, lengths), torch.tensor([2, 0, 0])
    for column in tokens.unbind(1)[:3]:
        _, state = decoder.step(column, state)
    before, _ = decoder.step(tokens[:, 3], state)
    after, _ = decoder.step(tokens[rows, 3], decoder.reorder(state, rows))
    torch.testing.assert_close(after, before[rows], atol=1e-6, rtol=0)


@torch.inference_mode()
def test_rows_of_one_memory_are_reordered_without_it(decoder: CharacterDecoder) -> None:
    seen, lengths = memory([9, 4])
    state = decoder.reorder(decoder.start(seen, lengths), torch.tensor([0, 0, 0, 1, 1, 1]))
    for _ in range(3):
        _, state = decoder.step(torch.randint(11, (6,)), state)
    rows, tokens = torch.tensor([2, 0, 0, 4, 3, 5]), torch.randint(11, (6,))
    expected, _ = decoder.step(tokens, decoder.reorder(state, rows))
    found, _ = decoder.step(tokens, decoder.reorder(state, rows, memory=False))
    assert torch.equal(found, expected)


@torch.inference_mode()
def test_the_order_of_the_memory_matters() -> None:
    decoder = DECODERS[0](11, 14).eval()
    seen, lengths = memory([9])
    tokens, order = torch.randint(11, (1, 3)), torch.randperm(9)
    assert (decoder(seen[:, order], lengths, tokens) - decoder(seen, lengths, tokens)).abs().max() > 1e-3


@torch.inference_mode()
def test_cross_attention_equals_that_of_torch() -> None:
    ours, theirs = CrossAttention(12, 14, 3), nn.MultiheadAttention(12, 3, batch_first=True, kdim=14, vdim=14)
    keys, values = ours.inputs.weight.chunk(2)
    theirs.q_proj_weight.copy_(ours.query.weight)
    theirs.k_proj_weight.copy_(keys)
    theirs.v_proj_weight.copy_(values)
    theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.inputs.bias]))
    theirs.out_proj.load_state_dict(ours.output.state_dict())
    (seen, lengths), x = memory([9, 4, 1]), torch.randn(3, 5, 12)
    mask = torch.arange(9) < lengths[:, None]
    expected, _ = theirs(x, seen, seen, key_padding_mask=~mask, need_weights=False)
    bias = torch.zeros(3, 1, 1, 9).masked_fill(~mask[:, None, None], -torch.inf)
    torch.testing.assert_close(ours(x, *ours.keys(seen), bias), expected, atol=1e-6, rtol=0)


def test_sinusoids_are_those_of_the_paper() -> None:
    found = sinusoids(torch.tensor([0, 7, 2000]), 6)
    for row, place in enumerate((0, 7, 2000)):
        for i in range(3):
            angle = torch.tensor(place / 10000 ** (2 * i / 6), dtype=torch.float64)
            expected = torch.stack([angle.sin(), angle.cos()]).float()
            torch.testing.assert_close(found[row, 2 * i : 2 * i + 2], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("ctc", [True, False])
@pytest.mark.parametrize("writer", DECODERS, ids=["transformer", "recurrent"])
def test_every_weight_is_learned(writer, ctc: bool) -> None:
    """A weight without a gradient would stop a run with several ranks."""

    def encoder(classes: int) -> CRNN:
        return CRNN(classes, ResidualBackbone([8], [1], [[2, 2]], 4), hidden=7, layers=1)

    net = EncoderDecoder(11, encoder, lambda classes, channels: writer(classes, channels), ctc)
    seen = net(torch.rand(2, 1, 16, 60), torch.tensor([60, 41]))
    assert len(seen.heads) == 2 * ctc
    outputs = [*seen.heads, net.decoder(seen.memory, seen.lengths, torch.randint(11, (2, 5)))]
    sum((logits * torch.randn_like(logits)).sum() for logits in outputs).backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []
