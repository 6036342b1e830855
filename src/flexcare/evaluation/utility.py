"""The utility of hourly warnings of sepsis, as the Challenge of 2019 defines it.

Source: Reyna MA et al (2020), Crit Care Med 48:210-217, doi:10.1097/CCM.0000000000004145. Warning
is worth most 6 h before the onset, nothing earlier than 12 h before or later than 3 h after it;
silence costs more and more from 6 h before on; a false alarm costs a little. The label is 1 from
6 h before the onset on.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flexcare.evaluation.metrics import Answers, Bools, Floats

EARLIEST, BEST, LATEST = -12.0, -6.0, 3.0  # hours from the onset
HIT, MISSED, FALSE_ALARM = 1.0, -2.0, -0.05
LABELLED_BEFORE = 6.0  # hours before the onset that the label begins


@dataclass(frozen=True)
class Worth:
    """What an hour brings, (N,) each: with a warning, and without one."""

    warned: Floats
    silent: Floats

    @property
    def best(self) -> Floats:
        """Of whoever knows the future."""
        return np.maximum(self.warned, self.silent)


def worth(answers: Answers, hours: Floats) -> Worth:
    """The worth of every hour of every stay.

    Args:
        answers: (N, 1) labels of one binary task; the subjects' first 1 tells their onset.
        hours: (N,) since the stay's start.
    """
    onset = np.full(int(answers.subjects.max(initial=-1)) + 1, np.inf)
    ill = answers.labels[:, 0] == 1
    np.minimum.at(onset, answers.subjects[ill], hours[ill] + LABELLED_BEFORE)
    after = hours - onset[answers.subjects]  # -inf where no sepsis comes
    counts = after <= LATEST
    rising = HIT * (after - EARLIEST) / (BEST - EARLIEST)
    falling = HIT * (LATEST - after) / (LATEST - BEST)
    warned = np.where(after <= BEST, np.maximum(rising, FALSE_ALARM), falling)
    silent = np.where(after <= BEST, 0.0, MISSED * (after - BEST) / (LATEST - BEST))
    return Worth(np.where(counts, warned, 0.0), np.where(counts, silent, 0.0))


def best_threshold(answers: Answers, hours: Floats) -> float:
    """The probability from which on warnings bring most; infinity where none brings anything."""
    value, probability = worth(answers, hours), answers.probabilities[:, 0]
    order = np.argsort(-probability, kind="stable")
    total = np.cumsum((value.warned - value.silent)[order])
    ends = np.append(np.diff(probability[order]) < 0, True)  # equal ones are warned of together
    total = np.where(ends, total, -np.inf)
    place = int(np.argmax(total))
    return float(probability[order][place]) if total[place] > 0 else np.inf


def utility(
    answers: Answers, hours: Floats, threshold: float, copies: npt.NDArray[np.int16]
) -> tuple[float, Floats]:
    """The normalised utility, 1 of whoever knows the future and 0 of whoever never warns.

    Args:
        copies: (R, subjects) how often each subject is drawn.

    Returns:
        the value, and that of each resample (R,); NaN where there is nothing to gain.
    """
    value = worth(answers, hours)
    alarm: Bools = answers.probabilities[:, 0] >= threshold
    gain = np.where(alarm, value.warned, value.silent) - value.silent
    possible = value.best - value.silent
    people = copies.shape[1]
    sums = np.stack([np.bincount(answers.subjects, part, people) for part in (gain, possible)], 1)
    drawn = np.vstack([np.ones_like(copies[:1]), copies]) @ sums
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(drawn[:, 1] > 0, drawn[:, 0] / drawn[:, 1], np.nan)
    return float(share[0]), share[1:]
