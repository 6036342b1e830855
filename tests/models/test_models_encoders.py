"""Encoders: which tokens a modality gives, and where they stand."""

import itertools
import math

import pytest
import torch

from flexcare.batch import Tokens
from flexcare.config import ModelConfig
from flexcare.models.encoders import ENCODERS, Static, Text, TimeSeries
from flexcare.models.groups import by_length, encode
from flexcare.models.numbers import KNOTS, PIECES, pieces, squashed
from flexcare.schema import ModalityInfo

CONFIG = ModelConfig(hidden=6, max_bins=4, max_pieces=4, patch=2)


def encoder(kind, width, **settings):
    torch.manual_seed(0)
    return ENCODERS[kind](ModalityInfo("m", kind, width, settings), CONFIG).double()


def test_a_long_series_keeps_its_last_bins_and_positions_start_at_zero():
    series = encoder("time_series", 3)
    values = torch.randn(3, 7, 3, dtype=torch.float64)
    lengths = torch.tensor([7, 5, 2])
    valid = torch.arange(7) < lengths[:, None]
    tokens, kept = series(values.masked_fill(~valid[..., None], float("nan")), valid)
    assert tokens.shape == (3, 4, 6)
    assert kept.sum(1).tolist() == [4, 4, 2]
    for row, length in enumerate(lengths.tolist()):
        last = values[row, :length][-4:]
        expected = series.project(last) + series.positions[: len(last)]
        torch.testing.assert_close(tokens[row, : len(last)], expected)


def test_a_short_series_is_taken_whole():
    series = encoder("time_series", 3)
    values = torch.randn(2, 3, 3, dtype=torch.float64)
    tokens, _ = series(values, torch.ones(2, 3, dtype=torch.bool))
    torch.testing.assert_close(tokens, series.project(values) + series.positions[:3])


def test_a_long_note_keeps_its_first_word_pieces():
    text = encoder("text", 5)
    values, valid = torch.randn(2, 9, 5, dtype=torch.float64), torch.ones(2, 9, dtype=torch.bool)
    tokens, kept = text(values, valid)
    torch.testing.assert_close(tokens, text.project(values[:, :4]) + text.positions)
    assert kept.shape == (2, 4)


def test_patches_go_row_by_row():
    image = encoder("image", 6)
    film = torch.arange(36, dtype=torch.float64).reshape(1, 6, 6)
    tokens, valid = image(film, torch.ones(1, 1, dtype=torch.bool))
    assert valid.shape == (1, 9)
    second_row_first = film[0, 2:4, 0:2].reshape(-1)
    expected = image.project(second_row_first) + image.positions[3]
    torch.testing.assert_close(tokens[0, 3], expected)


def test_patches_are_a_convolution_of_stride_one_patch():
    image = encoder("image", 6, channels=3)
    film = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    tokens, _ = image(film, torch.ones(2, 1, dtype=torch.bool))
    kernel = image.project.weight.reshape(6, 3, 2, 2)
    expected = torch.nn.functional.conv2d(film, kernel, image.project.bias, stride=2)
    torch.testing.assert_close(tokens - image.positions, expected.flatten(2).transpose(1, 2))


def test_three_equal_channels_are_one_channel_with_the_sum_of_the_weights():
    three, one = encoder("image", 6, channels=3), encoder("image", 6)
    with torch.no_grad():
        one.project.weight.copy_(three.project.weight.reshape(6, 3, 4).sum(1))
        one.project.bias.copy_(three.project.bias)
        one.positions.copy_(three.positions)
    film, valid = torch.rand(2, 6, 6, dtype=torch.float64), torch.ones(2, 1, dtype=torch.bool)
    tokens, _ = three(film[:, None].expand(-1, 3, -1, -1), valid)
    torch.testing.assert_close(tokens, one(film, valid)[0])


@pytest.mark.parametrize("kind", ["time_series", "text"])
def test_samples_without_a_valid_token_are_left_out(kind):
    valid = torch.tensor([[True, True], [False, False], [True, False]])
    values = torch.full((3, 2, 3), float("nan"), dtype=torch.float64)
    values[valid] = 1.0
    groups = encode(encoder(kind, 3), Tokens(values, valid, torch.tensor([0, 4, 7])))
    assert [group.rows.tolist() for group in groups] == [[7], [0]]
    assert all(group.values.isfinite().all() for group in groups)


def test_sequences_that_come_to_one_length_are_one_group():
    series = encoder("time_series", 3)  # keeps the last four
    lengths = torch.tensor([7, 30, 5, 2, 12])
    valid = torch.arange(30) < lengths[:, None]
    values = torch.randn(5, 30, 3, dtype=torch.float64).masked_fill(~valid[..., None], math.nan)
    # Six rows of five sequences: the third and the last share one.
    rows, of = torch.tensor([0, 2, 3, 6, 7, 9]), torch.tensor([1, 3, 0, 2, 4, 0])
    groups = encode(series, Tokens(values, valid, rows, of))
    assert [group.valid.shape[1] for group in groups] == [2, 4]
    assert [group.rows.tolist() for group in groups] == [[2], [0, 3, 6, 7, 9]]
    for group in groups:
        for row, place in zip(group.rows.tolist(), group.of.tolist(), strict=True):
            one = int(of[rows.tolist().index(row)])
            alone = series(
                values[one : one + 1, : lengths[one]], valid[one : one + 1, : lengths[one]]
            )
            torch.testing.assert_close(group.values[place], alone[0][0])
            assert group.valid[place].all()


def test_groups_of_like_length_hold_every_sample_once_with_little_padding():
    torch.manual_seed(0)
    lengths = torch.randint(0, 300, (500,))
    valid = torch.arange(300) < lengths[:, None]
    values = torch.randn(500, 300, 2)
    groups = by_length(Tokens(values, valid, torch.arange(500) * 3))
    found = {}
    for group in groups:
        for row, one, ok in zip(group.rows.tolist(), group.values, group.valid, strict=True):
            found[row // 3] = one[ok]
            assert len(ok) * 0.7 <= int(ok.sum()) or len(ok) <= 2
    assert sorted(found) == lengths.nonzero()[:, 0].tolist()
    for sample, kept in found.items():
        assert torch.equal(kept, values[sample, : lengths[sample]])


def test_history_is_what_a_slow_reading_of_the_bins_finds():
    names = {"rate": {"unit": "1/min"}, "eye": {"unit": "score"}}
    settings = {"variables": names, "columns": ["rate", "eye=1", "eye=2", "rate seen", "eye seen"]}
    info = ModalityInfo("series", "time_series", 5, settings)
    history = TimeSeries(info, ModelConfig(hidden=8, series_history=True)).history
    generator = torch.Generator().manual_seed(0)
    columns = torch.randn(3, 7, 5, generator=generator)
    columns[..., 3:] = (torch.rand(3, 7, 2, generator=generator) < 0.4).float()
    found = history(columns)
    for n, bins in enumerate(columns.tolist()):
        for end in range(1, 8):
            mean, low, high, count, since = [], [], [], [], []
            for column, seen in ((0, 3), (1, 4), (2, 4)):
                shown = [b[column] for b in bins[:end] if b[seen]] or [bins[end - 1][column]]
                mean.append(sum(shown) / len(shown))
                low.append(min(shown))
                high.append(max(shown))
            for seen in (3, 4):
                hours = [hour for hour, b in enumerate(bins[:end], 1) if b[seen]]
                count.append(math.log1p(len(hours)))
                since.append(math.log1p(end - max(hours, default=0)))
            expected = torch.tensor(mean + low + high + count + since)
            torch.testing.assert_close(found[n, end - 1], expected)


def test_history_knows_no_later_bin():
    settings = {"variables": {"rate": {}}, "columns": ["rate", "rate seen"]}
    info = ModalityInfo("series", "time_series", 2, settings)
    encoder = TimeSeries(info, ModelConfig(hidden=8, series_history=True))
    values, valid = torch.randn(2, 6, 2), torch.ones(2, 6, dtype=torch.bool)
    changed = values.clone()
    changed[:, 4:] = 100
    torch.testing.assert_close(encoder(values, valid)[0][:, :4], encoder(changed, valid)[0][:, :4])


def test_history_sums_up_bins_that_are_not_kept():
    settings = {"variables": {"rate": {}}, "columns": ["rate", "rate seen"]}
    info = ModalityInfo("series", "time_series", 2, settings)
    whole = TimeSeries(info, ModelConfig(hidden=8, series_history=True, max_bins=6))
    short = TimeSeries(info, ModelConfig(hidden=8, series_history=True, max_bins=2))
    short.load_state_dict(whole.state_dict() | {"positions": whole.positions[4:]})
    values, valid = torch.randn(2, 6, 2), torch.ones(2, 6, dtype=torch.bool)
    torch.testing.assert_close(short(values, valid)[0], whole(values, valid)[0][:, 4:])


def test_one_kept_bin_is_the_last_of_all_bins():
    names = {"rate": {"unit": "1/min"}, "eye": {"unit": "score"}}
    settings = {"variables": names, "columns": ["rate", "eye=1", "eye=2", "rate seen", "eye seen"]}
    info = ModalityInfo("series", "time_series", 5, settings)
    whole = TimeSeries(info, ModelConfig(hidden=8, series_history=True, max_bins=9))
    one = TimeSeries(info, ModelConfig(hidden=8, series_history=True, max_bins=1))
    with torch.no_grad():
        whole.positions[:] = one.positions
    one.load_state_dict(whole.state_dict() | {"positions": one.positions})
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(6, 9, 5, generator=generator)
    values[..., 3:] = (torch.rand(6, 9, 2, generator=generator) < 0.3).float()
    lengths = torch.tensor([9, 1, 4, 0, 7, 2])
    valid = torch.arange(9) < lengths[:, None]
    values[~valid] = torch.nan
    found, there = one(values, valid)
    assert found.shape == (6, 1, 8)
    assert there[:, 0].tolist() == (lengths > 0).tolist()
    expected = whole(values, valid)[0]
    for row, length in enumerate(lengths.tolist()):
        if length:
            torch.testing.assert_close(found[row, 0], expected[row, length - 1])


@pytest.mark.parametrize("history", [False, True])
def test_squashed_numbers_are_logarithms_on_both_sides(history):
    settings = {"variables": {"rate": {}}, "columns": ["rate", "rate seen"]}
    info = ModalityInfo("series", "time_series", 2, settings)
    config = {"hidden": 8, "series_history": history}
    plain = TimeSeries(info, ModelConfig(**config))
    squashing = TimeSeries(info, ModelConfig(**config, squash=True))
    squashing.load_state_dict(plain.state_dict())
    values = torch.tensor([[[1e4, 1.0], [-3.0, 0.0]]])
    logs = torch.tensor([[[math.log(10001), math.log(2)], [-math.log(4), 0.0]]])
    valid = torch.ones(1, 2, dtype=torch.bool)
    torch.testing.assert_close(squashing(values, valid)[0], plain(logs, valid)[0])


def test_static_fields_are_squashed_alike():
    info = ModalityInfo("static", "static", 2, {"variables": {"age": {}, "sex": {}}})
    plain, squashing = (Static(info, ModelConfig(hidden=8, squash=x)) for x in (False, True))
    squashing.load_state_dict(plain.state_dict())
    values, valid = torch.tensor([[[9.0, 0.0], [0.0, -1.0]]]), torch.ones(1, 2, dtype=torch.bool)
    logs = torch.tensor([[[math.log(10), 0.0], [0.0, -math.log(2)]]])
    torch.testing.assert_close(squashing(values, valid)[0], plain(logs, valid)[0])


def test_pieces_are_the_shares_of_the_intervals_a_number_has_got_through():
    knots = sorted([*KNOTS, *(-knot for knot in KNOTS), 0])
    values = torch.tensor([[-9.0, -0.5, 0.0], [0.25, 1.0, 9.0]], dtype=torch.float64)
    found = pieces(values).reshape(2, 3, PIECES)
    for place, value in enumerate(values.flatten().tolist()):
        for piece, (low, high) in enumerate(itertools.pairwise(knots)):
            share = min(max((value - low) / (high - low), 0), 1)
            expected = share - (1 if high <= 0 else 0)
            assert found[divmod(place, 3)][piece].item() == pytest.approx(expected)
    assert (found[0, 2] == 0).all()  # of the usual, nothing is said
    widths = torch.tensor([high - low for low, high in itertools.pairwise(knots)]).double()
    torch.testing.assert_close(found @ widths, values.clamp(knots[0], knots[-1]))


def test_numbers_are_cut_and_neither_categories_nor_what_was_seen():
    names = {"rate": {"unit": "1/min"}, "eye": {"unit": "score"}}
    columns = ["rate", "eye=1", "eye=2", "rate seen", "eye seen"]
    info = ModalityInfo("series", "time_series", 5, {"variables": names, "columns": columns})
    series = TimeSeries(info, ModelConfig(hidden=8, pieces=True))
    values, valid = torch.randn(2, 3, 5), torch.ones(2, 3, dtype=torch.bool)
    told = torch.cat([values, pieces(values[..., :1])], -1)
    torch.testing.assert_close(
        series(values, valid)[0], series.project(told) + series.positions[:3]
    )
    history = TimeSeries(info, ModelConfig(hidden=8, pieces=True, series_history=True, max_bins=1))
    told = torch.cat([values, history.history(values)], -1)[:, -1:]
    told = torch.cat([told, pieces(torch.cat([told[..., :1], told[..., 5:]], -1))], -1)
    torch.testing.assert_close(history(values, valid)[0], history.project(told) + history.positions)


def test_a_fields_pieces_hold_nothing_of_other_fields():
    settings = {"variables": {"age": {}, "sex": {}}, "columns": ["age", "sex=F", "sex=M"]}
    info = ModalityInfo("static", "static", 3, settings)
    static = Static(info, ModelConfig(hidden=8, squash=True, pieces=True))
    values = torch.tensor([[[9.0, 0.0, 0.0], [0.0, 0.0, 1.0]]])
    told = squashed(values)
    told = torch.cat([told, pieces(told[..., :1])], -1)
    assert told[0, 1].count_nonzero() == 1
    found, _ = static(values, torch.ones(1, 2, dtype=torch.bool))
    torch.testing.assert_close(found, static.project(told) + static.fields)


def test_a_text_may_be_the_mean_of_its_pieces():
    info = ModalityInfo("note", "text", 3, {})
    config = ModelConfig(hidden=8, max_pieces=4, text_mean=True)
    encoder = Text(info, config)
    values = torch.randn(2, 6, 3)
    valid = torch.tensor([[True] * 6, [True, True, False, False, False, False]])
    values[1, 2:] = math.nan
    found, there = encoder(values, valid)
    assert found.shape == (2, 1, 8)
    assert there.tolist() == [[True], [True]]
    means = torch.stack([values[0, :4].mean(0), values[1, :2].mean(0)])[:, None]
    expected = encoder.project(means) + encoder.positions[:1]
    torch.testing.assert_close(found, expected)
