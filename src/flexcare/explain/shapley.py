"""What each modality adds to an answer: exact Shapley values over what might have been known.

Lloyd Shapley 1953, "A value for n-person games". A network that answers from any set of modalities
needs no stand-in for what is taken away: each set is simply asked.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from flexcare.batch import Tokens
from flexcare.errors import UserError
from flexcare.explain.question import Question

MOST = 12  # modalities, whose 4,096 sets are all asked
Floats = NDArray[np.float64]


def answers_by_set(question: Question, known: Mapping[str, Tokens]) -> Floats:
    """(2^M,) log-odds where only some of the M modalities are known.

    Args:
        known: what is known of one sample, sequences of one row. The m-th of them belongs to the
            sets whose number has bit m.

    Raises:
        UserError: more than `MOST` modalities.
    """
    if len(known) > MOST:
        raise UserError(
            "too many modalities to try all their sets",
            found=f"{len(known)} known of this sample: {', '.join(known)}",
            expected=f"at most {MOST}, for they have 2 to the power of that many sets",
            do="Ask a bundle that was trained on fewer: flexcare train --modalities.",
        )
    every = torch.arange(2 ** len(known))
    with torch.inference_mode():
        some = torch.split(every, question.rows)
        parts = [question(len(sets), only(known, sets)) for sets in some]
    found: Floats = torch.cat(parts).numpy()
    return found


def only(known: Mapping[str, Tokens], sets: torch.Tensor) -> dict[str, Tokens]:
    """What rows know that have the modalities of `sets` (B,); they share the sample's sequences."""
    out = {}
    for bit, (name, tokens) in enumerate(known.items()):
        rows = (sets >> bit & 1).nonzero()[:, 0]
        if len(rows):
            out[name] = Tokens(tokens.values, tokens.valid, rows, torch.zeros_like(rows))
    return out


def shapley_values(answers: Floats) -> Floats:
    """(2^M,) answers by set, see `answers_by_set` -> (M,) what each member adds.

    The mean over all orders in which the members may join of what each adds when it does. They add
    up to the answer of all less that of none.
    """
    count = len(answers).bit_length() - 1
    sets = np.arange(len(answers))
    size = np.bitwise_count(sets).astype(np.int64)
    # Share of the orders in which just the s members of a set come first: s! (M-1-s)! / M!.
    share = np.full(max(count, 1), 1 / max(count, 1))
    for s in range(1, count):
        share[s] = share[s - 1] * s / (count - s)
    out = np.zeros(count)
    for member in range(count):
        without = sets[sets >> member & 1 == 0]
        out[member] = share[size[without]] @ (answers[without | 1 << member] - answers[without])
    return out
