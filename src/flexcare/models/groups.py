"""Sequences of like length together, so that little is computed for padding."""

import itertools

import torch
from torch import nn

from flexcare.batch import Tokens


def encode(encoder: nn.Module, tokens: Tokens) -> list[Tokens]:
    """Tokens of width D, by groups of like length; rows that know no token are left out."""
    out: dict[int, list[Tokens]] = {}
    for group in by_length(tokens):
        values, valid = encoder(group.values, group.valid)
        found = Tokens(values, valid, group.rows, group.of, group.until)
        out.setdefault(valid.shape[1], []).append(found)
    return [_joined(groups) for groups in out.values()]


def _joined(groups: list[Tokens]) -> Tokens:
    """One group of those that have come to one length: what follows costs by the group."""
    if len(groups) == 1:
        return groups[0]
    begins = itertools.accumulate((len(one.valid) for one in groups), initial=0)
    of = torch.cat([one.of + begin for one, begin in zip(groups, begins, strict=False)])
    rows, order = torch.cat([one.rows for one in groups]).sort()
    until = [one.until for one in groups if one.until is not None]
    return Tokens(
        torch.cat([one.values for one in groups]),
        torch.cat([one.valid for one in groups]),
        rows,
        of[order],
        torch.cat(until)[order] if until else None,
    )


def by_length(tokens: Tokens) -> list[Tokens]:
    """The same sequences in groups whose lengths differ by less than half: little padding.

    Nothing is computed for what lies behind a group's last valid token. Rows that know no token,
    and their sequences, are in no group.
    """
    known = tokens.known().any(1)
    number = torch.arange(1, tokens.valid.shape[1] + 1, device=tokens.valid.device)
    length = torch.where(tokens.valid, number, 0).amax(1)
    used = torch.zeros_like(length).index_fill(0, tokens.of[known], 1)
    step = torch.where(used > 0, (2 * length.log2()).ceil().int(), -1)
    groups = []
    for one in sorted(set(step[step >= 0].tolist())):
        chosen = (step == one).nonzero()[:, 0]
        mine = (known & (step == one)[tokens.of]).nonzero()[:, 0]
        stop = int(length[chosen].amax())
        cut = (chosen, slice(stop)) if stop < len(number) else (chosen,)
        groups.append(
            Tokens(
                tokens.values[cut],
                tokens.valid[cut],
                tokens.rows[mine],
                torch.searchsorted(chosen, tokens.of[mine]),
                None if tokens.until is None else tokens.until[mine],
            )
        )
    return groups
