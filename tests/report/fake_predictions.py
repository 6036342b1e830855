"""Invented predictions: three models on seven questions, for patients that never were."""

import datetime
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from flexcare.evaluation.predictions import predictions_table
from flexcare.schema import SAMPLES, TaskInfo

FIRST_SUBJECT = 81_000_000  # no other number on a page looks like this
MODELS = {
    "flexcare": "this network, one for all questions",
    "trees": "gradient boosted trees, one set for each question, on summaries of the same data",
    "majority": "always says how often it happened in training",
}
PHENOTYPES = (
    "Acute and unspecified renal failure",
    "Acute cerebrovascular disease",
    "Acute myocardial infarction",
    "Cardiac dysrhythmias",
    "Chronic kidney disease",
    "Chronic obstructive pulmonary disease",
    "Complications of surgical or medical care",
    "Conduction disorders",
    "Congestive heart failure",
    "Coronary atherosclerosis",
    "Diabetes with complications",
    "Diabetes without complication",
    "Disorders of lipid metabolism",
    "Essential hypertension",
    "Fluid and electrolyte disorders",
    "Gastrointestinal haemorrhage",
    "Hypertension with complications",
    "Other liver diseases",
    "Other lower respiratory disease",
    "Other upper respiratory disease",
    "Pleurisy, pneumothorax, pulmonary collapse",
    "Pneumonia",
    "Respiratory failure",
    "Septicaemia",
    "Shock",
)
FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Oedema",
    "Enlarged cardiomediastinum",
    "Fracture",
    "Lung lesion",
    "Lung opacity",
    "No finding",
    "Pleural effusion",
    "Pleural other",
    "Pneumonia",
    "Pneumothorax",
    "Support devices",
)
DAYS = ("<1 d", "1–2 d", "2–3 d", "3–4 d", "4–5 d", "5–6 d", "6–7 d", "7–8 d", "8–14 d", "≥14 d")
DRGS = ("720", "133", "194", "021", "174", "005", "162", "710", "190", "460")


@dataclass(frozen=True)
class Plan:
    """A question, its size, how rare it is, and how much each model knows (0..1)."""

    info: TaskInfo
    samples: int
    per_subject: int
    rate: float
    network: float
    trees: float


def plans() -> list[Plan]:
    """Seven questions."""
    ap, macro = "average_precision", "macro_average_precision"

    def ask(name, question, kind, classes, metric, hourly=False):
        return TaskInfo(name, question, kind, classes, metric, hourly=hourly)

    die = "Will this patient die before leaving the hospital?"
    soon = "Will this patient die within the next 24 hours?"
    days = "How many more days will this patient stay in intensive care?"
    which = "Which of 25 conditions were treated during this admission?"
    back = "Will this patient come back or die within 30 days of leaving?"
    film = "What does the chest film show?"
    bill = "Which diagnosis-related group will this admission be billed under?"
    mortality = ask("in_hospital_mortality", die, "binary", ("death in hospital",), ap)
    decompensation = ask("decompensation", soon, "binary", ("death within 24 h",), ap, hourly=True)
    stay = ask("length_of_stay", days, "multiclass", DAYS, "quadratic_kappa", hourly=True)
    phenotyping = ask("phenotyping", which, "multilabel", PHENOTYPES, macro)
    readmission = ask("readmission", back, "binary", ("readmission or death",), ap)
    diagnosis = ask("diagnosis", film, "multilabel", FINDINGS, macro)
    drg = ask("drg", bill, "multiclass", DRGS, "macro_f1")
    return [
        Plan(mortality, samples=1100, per_subject=1, rate=0.13, network=1.5, trees=1.2),
        Plan(decompensation, samples=6000, per_subject=40, rate=0.02, network=2.0, trees=1.7),
        Plan(stay, samples=6000, per_subject=40, rate=0, network=0.45, trees=0.40),
        Plan(phenotyping, samples=1500, per_subject=1, rate=0.2, network=1.0, trees=0.95),
        Plan(readmission, samples=1300, per_subject=1, rate=0.15, network=0.5, trees=0.85),
        Plan(diagnosis, samples=800, per_subject=2, rate=0.2, network=1.4, trees=0.5),
        Plan(drg, samples=1300, per_subject=1, rate=0, network=0.35, trees=0.25),
    ]


def truth(plan: Plan, rng: np.random.Generator, other: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and what is to be known of them, (N, outputs); `other` patients at the same rates."""
    n, outputs = plan.samples, plan.info.outputs
    if plan.info.kind == "multiclass":
        weights = np.linspace(2, 0.5, outputs)
        latent = rng.choice(outputs, n, p=weights / weights.sum())
        distance = np.abs(latent[:, None] - np.arange(outputs)).astype(float)
        return latent[:, None].astype(float), -distance
    rates = plan.rate * rng.uniform(0.3, 2, outputs) if outputs > 1 else np.array([plan.rate])
    rng = np.random.default_rng(other) if other else rng
    whom = np.repeat(np.arange(n // plan.per_subject + 1), plan.per_subject)[:n]
    shared = rng.normal(size=(whom.max() + 1, outputs))[whom]
    latent = 0.7 * shared + 0.7 * rng.normal(size=(n, outputs))
    labels = (latent > np.quantile(latent, 1 - rates, axis=0).diagonal()).astype(float)
    if plan.info.name == "diagnosis":
        labels[:, FINDINGS.index("Pleural other")] = 0
    return labels, labels


def predict(plan: Plan, labels: np.ndarray, known: np.ndarray, skill: float, seed: int):
    """Probabilities of a model that knows `skill` of the truth."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=known.shape)
    if plan.info.kind == "multiclass":
        logits = skill * known + noise
        spread = np.exp(logits)
        return spread / spread.sum(1, keepdims=True)
    rates = labels.mean(0).clip(0.005, 0.995)
    # Posterior of a normal score whose mean is `skill` higher where the label is 1.
    score = skill * known + noise
    odds = np.log(rates / (1 - rates)) + skill * score - skill**2 / 2
    return 1 / (1 + np.exp(-odds * 0.9))


def samples(plan: Plan, labels: np.ndarray, rng: np.random.Generator, split: str) -> pa.Table:
    """The store's rows."""
    mask = np.ones_like(labels, bool)
    if plan.info.name == "diagnosis":
        mask = rng.random(labels.shape) < 0.5
    rows = [
        {
            "sample_id": f"{plan.info.name}/{FIRST_SUBJECT + i}",
            "task": plan.info.name,
            "subject_id": FIRST_SUBJECT + i // plan.per_subject,
            "hadm_id": None,
            "stay_id": None,
            "prediction_time": datetime.datetime(2180, 1, 1),
            "hours": 48.0,
            "label": labels[i].tolist(),
            "label_mask": mask[i].tolist(),
            "split": split,
        }
        for i in range(plan.samples)
    ]
    return pa.Table.from_pylist(rows, schema=SAMPLES)


def tables(split: str = "held_out") -> dict[str, pa.Table]:
    """Predictions of three models on seven questions."""
    other = 0 if split == "held_out" else 50
    out: dict[str, list[pa.Table]] = {model: [] for model in MODELS}
    names = ["film+note+series", "film+series", "note+series", "series", "film", "none"]
    for number, plan in enumerate(plans()):
        rng = np.random.default_rng(number)
        labels, known = truth(plan, rng, other and number + other)
        rows = samples(plan, labels, rng, split)
        present = rng.choice(names, plan.samples, p=[0.22, 0.2, 0.27, 0.27, 0.03, 0.01]).tolist()
        bands = rng.choice(
            ["18-44", "45-64", "65-79", "80+"], plan.samples, p=[0.15, 0.3, 0.35, 0.2]
        )
        sexes = rng.choice(["F", "M"], plan.samples, p=[0.44, 0.56])
        units = rng.choice(
            ["medical", "surgical", "cardiac", "neuro"], plan.samples, p=[0.5, 0.3, 0.19, 0.01]
        )
        groups = [
            {"age_band": a, "sex": s, "care_unit": u}
            for a, s, u in zip(bands, sexes, units, strict=True)
        ]
        skills = {"flexcare": plan.network, "trees": plan.trees, "majority": 0.0}
        for offset, (model, skill) in enumerate(skills.items()):
            probabilities = predict(
                plan, labels, known, skill, 10_000 + 100 * number + offset + other
            )
            if model == "majority":
                probabilities = np.tile(probabilities.mean(0), (plan.samples, 1))
            out[model].append(
                predictions_table(rows, plan.info, probabilities, model, present, groups)
            )
    return {model: pa.concat_tables(parts) for model, parts in out.items()}
