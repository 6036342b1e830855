"""Small networks of eight modalities, one at least of each kind, and batches for them."""

import torch

from flexcare.baselines.networks import NETWORKS
from flexcare.batch import Batch, Tokens
from flexcare.config import ModelConfig
from flexcare.features.variables import variable_set
from flexcare.schema import ModalityInfo, TaskInfo

VARIABLES = {
    "pulse": {"unit": "1/min", "normal": 80.0},
    "awake": {"unit": "", "normal": "yes", "categories": ["yes", "no"]},
}
COLUMNS = list(variable_set(VARIABLES, "the test").columns())  # 3 of values, 2 of masks
ECG = {"channels": ["I", "II"], "unit": "mV", "kind": "wave", "rate": 2, "samples": 8}
INFOS = (
    ModalityInfo("codes", "codes", 7, {}),
    ModalityInfo("facts", "static", 5, {"variables": {"age": {}, "sex": {}, "unit": {}}}),
    ModalityInfo("film", "image", 8, {}),
    ModalityInfo("note", "text", 5, {}),
    ModalityInfo("slides", "embedding", 4, {}),
    ModalityInfo("vitals", "time_series", 5, {"variables": VARIABLES, "columns": COLUMNS}),
    ModalityInfo("waves", "time_series", 3, {}),
    ModalityInfo("wrist", "wave", 8, {"variables": {"ecg": ECG}}),
)
TASKS = (
    TaskInfo("death", "?", "binary", ("dead",), "average_precision"),
    TaskInfo("days", "?", "multiclass", ("0", "1", "2"), "quadratic_kappa", 0.5, hourly=True),
    TaskInfo("findings", "?", "multilabel", ("a", "b"), "macro_average_precision", 0.2),
)
NAMES = tuple(task.name for task in TASKS)
SMALL = {"hidden": 8, "layers": 1, "heads": 2, "feedforward": 2, "patch": 4, "experts": 4}
SMALL |= {"max_bins": 8, "wave_patch": 4, "experts_per_token": 2, "max_combination": 2}
OTHERS = sorted(NETWORKS.keys() - {"flexcare"})
# Nothing, each alone, some of several, everything.
PATTERNS = torch.cartesian_prod(*[torch.tensor([False, True])] * len(INFOS))
PATTERNS = PATTERNS[[0, 1, 2, 4, 8, 16, 32, 64, 128, 7, 40, 86, 142, 181, 202, 237, 252, 255, 255]]
SERIES = [index for index, info in enumerate(INFOS) if info.kind == "time_series"]


def network(name, dtype=torch.float64, infos=INFOS, tasks=TASKS, **settings):
    """A network in eval mode whose every parameter matters."""
    torch.manual_seed(0)
    model = NETWORKS[name](ModelConfig(**(SMALL | settings)), infos, tasks).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model.eval()


def batch_of(present=PATTERNS, padding=float("nan"), seed=1, dtype=torch.float64, tasks=NAMES):
    """Row b has modality m where `present[b, m]`; what it has is the same whoever else has it."""
    random = torch.Generator().manual_seed(seed)
    inputs = {}
    for column, info in enumerate(INFOS):
        rows = present[:, column].nonzero()[:, 0]
        if info.kind in ("image", "wave"):
            values = torch.rand(len(present), 8 if info.kind == "image" else 2, 8, generator=random)
            valid = torch.ones(len(present), 1, dtype=torch.bool)
            if info.kind == "wave":
                values[:, 0, :2] = float("nan")  # a gap
        else:
            tokens = 3 if info.kind == "static" else 5
            width = 2 if info.kind == "codes" else info.width
            values = torch.randn(len(present), tokens, width, generator=random)
            lengths = torch.randint(1, tokens + 1, (len(present), 1), generator=random)
            valid = torch.arange(tokens) < lengths
            if info.kind == "time_series":
                values[..., -2:] = (values[..., -2:] > 0).float()  # masks
            if info.kind == "codes":
                values[..., 0] = torch.randint(0, 7, values.shape[:2], generator=random)
            values = torch.where(valid[..., None], values, padding)
        inputs[info.name] = Tokens(values[rows].to(dtype), valid[rows], rows)
    return Batch(len(present), inputs, tasks)
